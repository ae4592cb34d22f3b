"""Importers: an artifact that exists already, on this machine's disk or behind a URL."""

import functools
import http.server
import threading

import pytest
import runs
from kfp import dsl
from kfp.dsl import Dataset, Input, Model


@dsl.component(base_image="python:3.11")
def expect_body(data: Input[Dataset], body: str):
    with open(data.path) as file:
        found = file.read()
    assert found == body, repr(found)


@dsl.pipeline(name="import-one")
def import_one(uri: str, body: str):
    data = dsl.importer(artifact_uri=uri, artifact_class=Dataset, reimport=True)
    expect_body(data=data.output, body=body)


@pytest.fixture
def web(tmp_path):
    """A folder and the URL where an HTTP server shows it."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    shown = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    threading.Thread(target=shown.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{shown.server_address[1]}"
    shown.shutdown()
    shown.server_close()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_file_is_read_where_it_is(server, tmp_path, scheme):
    file = tmp_path / "rows.csv"
    file.write_text("1,2\n")
    uri = f"{scheme}{file}"
    run = runs.succeed(server, import_one, uri=uri, body="1,2\n")
    assert str(file) in runs.artifacts(server, run.id)["artifact"]["uri"]


def test_a_file_behind_a_url_is_fetched(server, web):
    folder, url = web
    (folder / "rows.csv").write_text("3,4\n")
    run = runs.succeed(server, import_one, uri=f"{url}/rows.csv", body="3,4\n")
    assert runs.artifacts(server, run.id)["artifact"]["uri"] == f"{url}/rows.csv"


def test_metadata_given_to_the_importer_is_kept(server, tmp_path):
    file = tmp_path / "model.bin"
    file.write_text("m")

    @dsl.pipeline(name="import-metadata")
    def pipeline(uri: str, version: str = "7"):
        dsl.importer(
            artifact_uri=uri,
            artifact_class=Model,
            reimport=True,
            metadata={"name": "net", "version": version},
        )

    run = runs.succeed(server, pipeline, uri=str(file))
    assert runs.artifacts(server, run.id)["artifact"]["metadata"] == {"name": "net", "version": "7"}


@pytest.mark.parametrize("reimport", [False, True])
def test_the_same_uri_is_one_artifact_unless_imported_anew(server, tmp_path, reimport):
    file = tmp_path / "same.csv"
    file.write_text("5,6\n")

    @dsl.pipeline(name="import-twice")
    def pipeline(uri: str):
        dsl.importer(artifact_uri=uri, artifact_class=Dataset, reimport=reimport)

    made = [
        runs.artifacts(server, runs.succeed(server, pipeline, uri=str(file)).id)["artifact"] for _ in range(2)
    ]
    assert (made[0]["artifact_id"] != made[1]["artifact_id"]) is reimport


def test_a_file_that_is_not_there_fails_with_its_reason(server, tmp_path):
    run = runs.fail(server, import_one, uri=str(tmp_path / "absent.csv"), body="")
    failures = "".join(run.failure(task["display_name"]) for task in run.tasks)
    assert "InputArtifactUnavailable" in failures
    assert "absent.csv" in failures


def test_a_url_that_does_not_answer_fails_with_its_reason(server, web):
    _, url = web
    run = runs.fail(server, import_one, uri=f"{url}/absent.csv", body="")
    failures = "".join(run.failure(task["display_name"]) for task in run.tasks)
    assert "InputArtifactUnavailable" in failures
    assert "404" in failures
