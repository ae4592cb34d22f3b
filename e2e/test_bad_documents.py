"""Uploads that are no good: refused with the place inside the document, and nothing stored."""

import io
import json
import uuid
import zipfile

import pytest
import runs
import yaml
from documents import BROKEN, GOOD, broken
from kfp_server_api import ApiException

MIB = 1024 * 1024


def upload(server, name: str, content: bytes, filename: str = "pipeline.yaml"):
    return server.http(
        "POST",
        "/apis/v2beta1/pipelines/upload",
        params={"name": name},
        files={"uploadfile": (filename, content)},
    )


def expect_refused(server, name: str, answer, *words: str) -> None:
    assert 400 <= answer.status_code < 500, f"{answer.status_code} {answer.text[:500]}"
    for word in words:
        assert word in answer.text, answer.text
    filter = json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": name}]})
    assert server.get("/pipelines", filter=filter).get("pipelines", []) == [], "it was stored"


@pytest.fixture
def name() -> str:
    return f"bad-{uuid.uuid4().hex[:12]}"


def test_the_document_that_the_others_are_broken_from_is_good(server, name):
    assert upload(server, name, yaml.safe_dump(GOOD).encode()).ok


@pytest.mark.parametrize(("change", "place"), BROKEN, ids=[change.__name__ for change, _ in BROKEN])
def test_an_upload_is_refused_with_the_place(server, name, change, place):
    answer = upload(server, name, yaml.safe_dump(broken(change)).encode())
    expect_refused(server, name, answer, f"`{place}")


@pytest.mark.parametrize(("change", "place"), BROKEN, ids=[change.__name__ for change, _ in BROKEN])
def test_an_inline_run_is_refused_with_the_place(server, change, place):
    before = server.get("/runs").get("total_size", 0)
    answer = runs.post_run(server, broken(change), {"rows": 3})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, 3), body
    assert f"`{place}" in body["message"], body
    assert server.get("/runs").get("total_size", 0) == before


def test_a_nested_place_is_named_from_the_component_that_holds_it(server, name):
    def nest(document):
        document["components"]["comp-inner"] = {
            "dag": {
                "tasks": {"lost": {"componentRef": {"name": "comp-nowhere"}, "taskInfo": {"name": "lost"}}}
            }
        }
        document["root"]["dag"]["tasks"]["inner"] = {
            "componentRef": {"name": "comp-inner"},
            "taskInfo": {"name": "inner"},
        }

    answer = upload(server, name, yaml.safe_dump(broken(nest)).encode())
    expect_refused(server, name, answer, "comp-inner.dag.tasks.lost")


def test_the_sdk_shows_why(server, name, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(broken(BROKEN[0][0])))
    with pytest.raises(ApiException) as refused:
        server.client.upload_pipeline(str(file), pipeline_name=name)
    assert 400 <= refused.value.status < 500
    assert "root.dag.tasks" in refused.value.body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01\x02\x03",
        b"just a sentence",
        b"[1, 2, 3]",
        b"a: [1",
        b"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: x}\n",
    ],
    ids=["empty", "binary", "a sentence", "a list", "broken YAML", "an Argo workflow"],
)
def test_what_is_no_pipeline_is_refused(server, name, content):
    expect_refused(server, name, upload(server, name, content))


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path.replace("__", "."), content)
    return buffer.getvalue()


def test_an_archive_without_a_pipeline_is_refused(server, name):
    expect_refused(server, name, upload(server, name, zipped(), "pipeline.zip"))
    expect_refused(server, name, upload(server, name, zipped(notes__txt=b"hello"), "pipeline.zip"))
    expect_refused(server, name, upload(server, name, b"PK\x03\x04cut short", "pipeline.zip"))
    expect_refused(server, name, upload(server, name, b"\x1f\x8bcut short", "pipeline.tar.gz"))


def test_an_upload_over_32_mib_is_refused(server, name):
    padded = yaml.safe_dump(GOOD).encode() + b"# " + b"x" * (32 * MIB) + b"\n"
    expect_refused(server, name, upload(server, name, padded), "32")


def test_an_archive_that_unpacks_to_more_than_32_mib_is_refused(server, name):
    padded = yaml.safe_dump(GOOD).encode() + b"# " + b"x" * (64 * MIB) + b"\n"
    packed = zipped(pipeline__yaml=padded)
    assert len(packed) < MIB
    expect_refused(server, name, upload(server, name, packed, "pipeline.zip"), "32")


def test_yaml_that_grows_when_it_is_read_is_refused(server, name):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    expect_refused(server, name, upload(server, name, "\n".join(lines).encode()))
    assert server.http("GET", "/healthz").ok


def test_a_name_that_is_taken_is_refused_and_the_first_stays(server, name):
    content = yaml.safe_dump(GOOD).encode()
    first = upload(server, name, content).json()
    again = upload(server, name, content)
    assert again.status_code == 409, again.text
    assert server.client.get_pipeline_id(name) == first["pipeline_id"]


def test_an_upload_without_a_file_is_refused(server, name):
    answer = server.http(
        "POST", "/apis/v2beta1/pipelines/upload", params={"name": name}, files={"other": b"x"}
    )
    expect_refused(server, name, answer, "uploadfile")
