"""The KFP API through the unmodified `kfp.Client`, and its shapes on the wire."""

import io
import json
import tarfile
import uuid
import zipfile

import kfp
import pytest
import runs
from kfp import dsl
from kfp_server_api import ApiException


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo"], args=[text])


@dsl.pipeline(name="client-probe", description="says something")
def spoken(text: str = "hello"):
    say(text=text)


@pytest.fixture
def name() -> str:
    return f"client-{uuid.uuid4().hex[:12]}"


def equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": 1, "key": key, "stringValue": value}]})


def test_an_experiment_is_made_found_archived_and_deleted(server, name):
    made = server.client.create_experiment(name, description="for a test")
    assert server.client.create_experiment(name).experiment_id == made.experiment_id
    found = server.client.get_experiment(experiment_name=name)
    assert (found.experiment_id, found.description) == (made.experiment_id, "for a test")
    server.client.archive_experiment(made.experiment_id)
    assert server.client.get_experiment(experiment_id=made.experiment_id).storage_state == "ARCHIVED"
    server.client.unarchive_experiment(made.experiment_id)
    assert server.client.get_experiment(experiment_id=made.experiment_id).storage_state == "AVAILABLE"
    server.client.delete_experiment(made.experiment_id)
    with pytest.raises(ValueError):
        server.client.get_experiment(experiment_name=name)


@pytest.mark.parametrize("form", ["yaml", "zip", "tar.gz"])
def test_a_pipeline_is_uploaded_in_each_form(server, name, tmp_path, form):
    text = runs.package(spoken).encode()
    file = tmp_path / f"pipeline.{form}"
    if form == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("pipeline.yaml", text)
    elif form == "tar.gz":
        with tarfile.open(file, "w:gz") as archive:
            member = tarfile.TarInfo("pipeline.yaml")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    else:
        file.write_bytes(text)
    uploaded = server.client.upload_pipeline(str(file), pipeline_name=name, description="d")

    assert server.client.get_pipeline_id(name) == uploaded.pipeline_id
    versions = server.client.list_pipeline_versions(uploaded.pipeline_id).pipeline_versions
    assert [version.display_name for version in versions] == [name]
    assert versions[0].pipeline_spec["pipelineInfo"]["name"] == "client-probe"


def test_a_version_is_added_run_and_deleted(server, name):
    pipeline = server.client.upload_pipeline_from_pipeline_func(spoken, pipeline_name=name)
    version = server.client.upload_pipeline_version_from_pipeline_func(
        spoken, pipeline_version_name=f"{name}-2", pipeline_id=pipeline.pipeline_id
    )
    experiment = server.client.create_experiment(name)
    started = server.client.run_pipeline(
        experiment_id=experiment.experiment_id,
        job_name=name,
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
        params={"text": "by version"},
    )
    ended = server.client.wait_for_run_completion(started.run_id, timeout=60, sleep_duration=0.1)
    assert ended.state == "SUCCEEDED"
    assert ended.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert runs.log(server, runs.read(server, started.run_id), "say") == "by version\n"

    with pytest.raises(ApiException):
        server.client.delete_pipeline(pipeline.pipeline_id)  # it has versions
    server.client.delete_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert len(server.client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions) == 1


def test_runs_are_listed_by_experiment_page_by_page(server, name):
    experiment = server.client.create_experiment(name)
    started = [
        server.client.create_run_from_pipeline_func(
            spoken, arguments={}, run_name=f"{name}-{number}", experiment_id=experiment.experiment_id
        ).run_id
        for number in range(5)
    ]
    found, token = [], ""
    while True:
        page = server.client.list_runs(
            experiment_id=experiment.experiment_id, page_size=2, page_token=token, sort_by="created_at asc"
        )
        assert page.total_size == 5
        found += [run.run_id for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert found == started
    one = server.client.list_runs(
        experiment_id=experiment.experiment_id, filter=equals("display_name", f"{name}-3")
    )
    assert [run.run_id for run in one.runs] == [started[3]]
    for run_id in started:
        runs.finish(server, run_id)


def test_a_run_is_archived_and_deleted(server):
    run = runs.succeed(server, spoken)
    server.client.archive_run(run.id)
    assert runs.read(server, run.id).body["storage_state"] == "ARCHIVED"
    server.client.unarchive_run(run.id)
    assert runs.read(server, run.id).body["storage_state"] == "AVAILABLE"
    server.client.delete_run(run.id)
    assert server.http("GET", f"/apis/v2beta1/runs/{run.id}").status_code == 404


def test_a_run_says_when_it_was_in_which_state(server):
    run = runs.succeed(server, spoken)
    states = [entry["state"] for entry in run.body["state_history"]]
    assert states[0] == "PENDING" and states[-1] == "SUCCEEDED"
    assert run.body["created_at"].endswith("Z") and run.body["finished_at"].endswith("Z")
    task = run.task("say")
    assert task["run_id"] == run.id
    assert task["start_time"] <= task["end_time"]
    assert run.body["runtime_config"].get("parameters", {}) == {}


def test_an_unfinished_run_ends_at_the_epoch(server, gate):
    @dsl.pipeline(name="unfinished")
    def pipeline(command: str):
        hold(command=command)

    run_id = runs.submit(server, pipeline, command=gate.shell)
    gate.wait_reached()
    assert runs.read(server, run_id).body["finished_at"] == "1970-01-01T00:00:00Z"
    gate.open()
    runs.finish(server, run_id)


@dsl.container_component
def hold(command: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c"], args=[command])


def test_the_prefix_of_the_old_pages_works_too(server, name):
    client = kfp.Client(host=f"{server.url}/pipeline")
    made = client.create_experiment(name)
    assert server.client.get_experiment(experiment_name=name).experiment_id == made.experiment_id


def test_health_says_one_user(server):
    assert server.client.get_kfp_healthz().multi_user is not True
    assert server.get("/healthz").get("multi_user", False) is False


def test_an_error_has_the_shape_that_clients_know(server):
    answer = server.http("GET", f"/apis/v2beta1/experiments/{uuid.uuid4()}")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (404, 5)
    assert body["details"][0]["@type"] == "type.googleapis.com/google.rpc.Status"
    assert body["details"][0]["message"] == body["message"]


@pytest.mark.parametrize(
    "query",
    [
        "page_size=-1",
        "sort_by=colour",
        "sort_by=created_at%20sideways",
        "page_token=nonsense",
        "filter=%7B",
        "filter=" + json.dumps({"predicates": [{"operation": 1, "key": "colour", "stringValue": "red"}]}),
    ],
)
def test_a_list_that_cannot_be_made_is_refused(server, query):
    answer = server.http("GET", f"/apis/v2beta1/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text


def test_a_name_in_a_filter_is_never_code(server, name):
    made = server.client.create_experiment(f"{name}'); DROP TABLE experiments; --")
    found = server.client.list_experiments(filter=equals("display_name", made.display_name))
    assert [experiment.experiment_id for experiment in found.experiments] == [made.experiment_id]
    assert server.client.list_experiments().total_size >= 1


def test_the_api_describes_itself(server):
    described = server.http("GET", "/apis/v2beta1/openapi.json").json()
    assert "/apis/v2beta1/runs" in described["paths"]
    assert described["openapi"].startswith("3.")


def test_there_is_a_page_at_the_root(server):
    answer = server.http("GET", "/")
    assert answer.ok and answer.headers["Content-Type"].startswith("text/html")
