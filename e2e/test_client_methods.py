"""Every method of `kfp.Client` and of `PipelinesClient`, and the generated services behind them."""

import functools
import http.server
import json
import threading
import time
import uuid

import compatibility
import kfp
import kfp_server_api
import pytest
import requests
import runs
from components import run, say
from kfp import dsl
from kfp.kubeflow_client import KubernetesBackendConfig, PipelinesClient
from kfp_server_api import ApiException


@dsl.pipeline(name="client-methods", description="says something")
def spoken(text: str = "hello"):
    say(text=text)


@dsl.pipeline(name="client-waits")
def waiting(script: str):
    run(script=script)


@pytest.fixture
def name() -> str:
    return f"methods-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(server) -> kfp.Client:
    return server.client


@pytest.fixture
def package(tmp_path) -> str:
    file = tmp_path / "spoken.yaml"
    file.write_text(runs.package(spoken))
    return str(file)


@pytest.fixture
def pipeline(client, package, name):
    return client.upload_pipeline(package, pipeline_name=name, description="for a test")


@pytest.fixture
def version(client, pipeline):
    return client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0]


@pytest.fixture
def experiment(client, name):
    return client.create_experiment(name)


def matching(**predicates) -> str:
    """A filter of EQUALS predicates."""
    listed = [{"operation": "EQUALS", "key": key, "string_value": value} for key, value in predicates.items()]
    return json.dumps({"predicates": listed})


def not_found(call, *arguments) -> None:
    with pytest.raises(ApiException) as refused:
        call(*arguments)
    assert refused.value.status == 404, refused.value


@pytest.mark.parametrize("client_class", [kfp.Client, PipelinesClient])
def test_no_public_method_is_forgotten(client_class):
    prefix = "kfp.Client" if client_class is kfp.Client else "PipelinesClient"
    names = {f"{prefix}.{name}" for name in compatibility.methods(client_class)}
    assert names <= {*compatibility.covered(), *compatibility.NOT_SUPPORTED}


# -- experiments


@pytest.mark.covers("kfp.Client.create_experiment", "kfp.Client.get_experiment")
def test_create_and_get_experiment(client, name):
    made = client.create_experiment(name, description="words")
    assert client.create_experiment(name).experiment_id == made.experiment_id
    for found in (
        client.get_experiment(experiment_name=name),
        client.get_experiment(experiment_id=made.experiment_id),
    ):
        assert (found.display_name, found.description) == (name, "words")
    with pytest.raises(ValueError):
        client.get_experiment(experiment_name=f"{name}-none")


@pytest.mark.covers("kfp.Client.list_experiments")
def test_list_experiments(client, name):
    made = [client.create_experiment(f"{name}-{letter}").experiment_id for letter in "abc"]
    filter = json.dumps(
        {"predicates": [{"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": name}]}
    )
    first = client.list_experiments(page_size=2, sort_by="display_name desc", filter=filter)
    assert first.total_size == 3
    second = client.list_experiments(
        page_size=2, sort_by="display_name desc", filter=filter, page_token=first.next_page_token
    )
    assert [e.experiment_id for e in [*first.experiments, *second.experiments]] == made[::-1]


@pytest.mark.covers("kfp.Client.archive_experiment", "kfp.Client.unarchive_experiment")
def test_archiving_an_experiment_archives_what_is_in_it(client, experiment, server):
    started = client.create_run_from_pipeline_func(
        spoken, arguments={}, experiment_id=experiment.experiment_id
    )
    runs.finish(server, started.run_id)
    client.archive_experiment(experiment.experiment_id)
    assert client.get_experiment(experiment.experiment_id).storage_state == "ARCHIVED"
    assert client.get_run(started.run_id).storage_state == "ARCHIVED"
    with pytest.raises(ApiException):
        client.create_run_from_pipeline_func(spoken, arguments={}, experiment_id=experiment.experiment_id)
    client.unarchive_experiment(experiment.experiment_id)
    assert client.get_experiment(experiment.experiment_id).storage_state == "AVAILABLE"
    assert client.get_run(started.run_id).storage_state == "ARCHIVED"


@pytest.mark.covers("kfp.Client.delete_experiment")
def test_delete_experiment(client, experiment):
    client.delete_experiment(experiment.experiment_id)
    not_found(client.get_experiment, experiment.experiment_id)


# -- pipelines


@pytest.mark.covers(
    "kfp.Client.upload_pipeline",
    "kfp.Client.get_pipeline",
    "kfp.Client.get_pipeline_id",
    "kfp.Client.list_pipelines",
)
def test_upload_get_and_list_pipelines(client, pipeline, name):
    assert client.get_pipeline(pipeline.pipeline_id).description == "for a test"
    assert client.get_pipeline_id(name) == pipeline.pipeline_id
    assert client.get_pipeline_id(f"{name}-none") is None
    listed = client.list_pipelines(filter=matching(display_name=name))
    assert [p.pipeline_id for p in listed.pipelines] == [pipeline.pipeline_id]
    assert client.list_pipelines(page_size=1).total_size >= 1


@pytest.mark.covers(
    "kfp.Client.upload_pipeline_from_pipeline_func", "kfp.Client.upload_pipeline_version_from_pipeline_func"
)
def test_upload_from_functions(client, name):
    made = client.upload_pipeline_from_pipeline_func(spoken, pipeline_name=name)
    version = client.upload_pipeline_version_from_pipeline_func(
        spoken, pipeline_version_name=f"{name}-2", pipeline_name=name, description="second"
    )
    assert version.pipeline_id == made.pipeline_id
    assert version.description == "second"


@pytest.mark.covers(
    "kfp.Client.upload_pipeline_version",
    "kfp.Client.list_pipeline_versions",
    "kfp.Client.get_pipeline_version",
    "kfp.Client.delete_pipeline_version",
    "kfp.Client.delete_pipeline",
)
def test_versions_are_added_listed_got_and_deleted(client, pipeline, package, name, version):
    added = client.upload_pipeline_version(package, f"{name}-2", pipeline_id=pipeline.pipeline_id)
    listed = client.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc").pipeline_versions
    assert [v.display_name for v in listed] == [f"{name}-2", name]
    found = client.get_pipeline_version(pipeline.pipeline_id, added.pipeline_version_id)
    assert found.pipeline_spec["pipelineInfo"]["name"] == "client-methods"
    client.delete_pipeline_version(pipeline.pipeline_id, added.pipeline_version_id)
    not_found(client.get_pipeline_version, pipeline.pipeline_id, added.pipeline_version_id)
    client.delete_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    not_found(client.get_pipeline, pipeline.pipeline_id)


# -- runs


@pytest.mark.covers("kfp.Client.run_pipeline", "kfp.Client.get_run", "kfp.Client.wait_for_run_completion")
def test_run_a_version_and_wait_for_it(client, experiment, pipeline, version, server):
    started = client.run_pipeline(
        experiment_id=experiment.experiment_id,
        job_name="by version",
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
        params={"text": "by version"},
    )
    ended = client.wait_for_run_completion(started.run_id, timeout=60, sleep_duration=0.1)
    assert ended.state == "SUCCEEDED"
    assert client.get_run(started.run_id).display_name == "by version"
    assert runs.log(server, runs.read(server, started.run_id), "say") == "by version\n"
    not_found(client.get_run, str(uuid.uuid4()))


@pytest.mark.covers("kfp.Client.create_run_from_pipeline_func", "kfp.Client.create_run_from_pipeline_package")
def test_run_functions_and_packages(client, package, name):
    for started in (
        client.create_run_from_pipeline_func(spoken, arguments={"text": "f"}, run_name=f"{name}-f"),
        client.create_run_from_pipeline_package(
            package, arguments={"text": "p"}, run_name=f"{name}-p", experiment_name=name
        ),
    ):
        assert started.wait_for_run_completion(timeout=60).state == "SUCCEEDED"
    assert client.get_experiment(experiment_name=name).display_name == name


@pytest.mark.covers("kfp.Client.list_runs")
def test_list_runs(client, experiment, name, server):
    made = [
        client.create_run_from_pipeline_func(
            spoken, arguments={}, run_name=f"{name}-{n}", experiment_id=experiment.experiment_id
        ).run_id
        for n in range(3)
    ]
    for run_id in made:
        runs.finish(server, run_id)
    assert [r.run_id for r in client.list_runs(experiment_id=experiment.experiment_id).runs] == made
    one = client.list_runs(filter=matching(display_name=f"{name}-1")).runs
    assert [r.run_id for r in one] == [made[1]]
    states = client.list_runs(experiment_id=experiment.experiment_id, filter=matching(state="SUCCEEDED"))
    assert states.total_size == 3
    newest = client.list_runs(experiment_id=experiment.experiment_id, sort_by="created_at desc", page_size=1)
    assert newest.runs[0].run_id == made[2] and newest.next_page_token


@pytest.mark.covers("kfp.Client.archive_run", "kfp.Client.unarchive_run", "kfp.Client.delete_run")
def test_archive_and_delete_a_run(client, server):
    run_id = runs.succeed(server, spoken).id
    client.archive_run(run_id)
    assert client.get_run(run_id).storage_state == "ARCHIVED"
    client.unarchive_run(run_id)
    assert client.get_run(run_id).storage_state == "AVAILABLE"
    client.delete_run(run_id)
    not_found(client.get_run, run_id)


@pytest.mark.covers("kfp.Client.terminate_run")
def test_terminate_a_run(client, server, gate):
    run_id = runs.submit(server, waiting, script=gate.shell)
    gate.wait_reached()
    client.terminate_run(run_id)
    assert runs.finish(server, run_id).state == "CANCELED"


@pytest.mark.covers("kfp.Client.runs")
def test_retry_a_run(client, server, witness):
    ended = runs.fail(server, waiting, script=f'test "$({witness.shell("retry")})" -ge 2')
    client.runs.run_service_retry_run(ended.id)
    runs.until(server, ended.id, lambda run: run.state == "SUCCEEDED")
    not_found(client.runs.run_service_retry_run, str(uuid.uuid4()))


# -- recurring runs


def recurring(client, experiment, name, package, **options):
    return client.create_recurring_run(
        experiment_id=experiment.experiment_id, job_name=name, pipeline_package_path=package, **options
    )


def let_seconds_pass(client, experiment, name: str, package) -> None:
    """Wait until the scheduler has made two runs of another schedule, one a second."""
    beside = recurring(client, experiment, f"{name}-clock", package, interval_second=1)
    deadline = time.monotonic() + 30
    while len(runs_of(client, beside.recurring_run_id)) < 2:
        assert time.monotonic() < deadline, "the scheduler makes no runs"
        time.sleep(0.1)
    client.disable_recurring_run(beside.recurring_run_id)


def runs_of(client, recurring_run_id: str) -> list:
    listed = client.list_runs(filter=matching(recurring_run_id=recurring_run_id), sort_by="created_at asc")
    return listed.runs or []


def wait_for_runs(client, server, recurring_run_id: str, number: int) -> list:
    deadline = time.monotonic() + 30
    while len(found := runs_of(client, recurring_run_id)) < number:
        assert time.monotonic() < deadline, f"{len(found)} runs after 30 s, {number} expected"
        time.sleep(0.1)
    for made in found:
        runs.finish(server, made.run_id)
    return found


@pytest.mark.covers(
    "kfp.Client.create_recurring_run",
    "kfp.Client.get_recurring_run",
    "kfp.Client.list_recurring_runs",
    "kfp.Client.disable_recurring_run",
    "kfp.Client.enable_recurring_run",
    "kfp.Client.delete_recurring_run",
    "kfp.Client.recurring_runs",
)
def test_a_cron_schedule_is_made_listed_switched_and_deleted(client, experiment, name, package):
    made = recurring(
        client, experiment, name, package, cron_expression="0 0 3 * * *", description="nightly",
        params={"text": "[[ScheduledTime]]"}, max_concurrency=2, no_catchup=True,
        start_time="2020-01-01T00:00:00Z", end_time="2099-01-01T00:00:00Z",
    )  # fmt: skip
    found = client.get_recurring_run(made.recurring_run_id)
    assert (found.display_name, found.status, found.mode) == (name, "ENABLED", "ENABLE")
    assert found.trigger.cron_schedule.cron == "0 0 3 * * *"
    assert (found.max_concurrency, found.no_catchup) == ("2", True)
    assert found.runtime_config.parameters == {"text": "[[ScheduledTime]]"}

    listed = client.list_recurring_runs(experiment_id=experiment.experiment_id)
    assert [r.recurring_run_id for r in listed.recurring_runs] == [made.recurring_run_id]
    assert client.list_recurring_runs(filter=matching(display_name=name)).total_size == 1

    client.disable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    client.enable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "ENABLED"
    client.delete_recurring_run(made.recurring_run_id)
    not_found(client.get_recurring_run, made.recurring_run_id)


@pytest.mark.covers(
    "kfp.Client.disable_job",
    "kfp.Client.enable_job",
    "kfp.Client.delete_job",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_old_names_of_recurring_runs(client, experiment, name, package):
    made = recurring(client, experiment, name, package, interval_second=3600, enabled=False)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    client.enable_job(made.recurring_run_id)
    client.disable_job(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    client.delete_job(made.recurring_run_id)
    not_found(client.get_recurring_run, made.recurring_run_id)


@pytest.mark.covers("Recurring runs: an interval makes runs", "Recurring runs: macros in parameters")
def test_an_interval_makes_runs_until_it_is_disabled(client, server, experiment, name, package):
    macros = "[[Index]] [[ScheduledTime.20060102]] [[CurrentTime]] [[RunUUID]]"
    made = recurring(client, experiment, name, package, interval_second=1, params={"text": macros})
    found = wait_for_runs(client, server, made.recurring_run_id, 2)
    client.disable_recurring_run(made.recurring_run_id)
    for number, one in enumerate(found[:2], start=1):
        assert one.recurring_run_id == made.recurring_run_id
        assert one.experiment_id == experiment.experiment_id
        index, day, now, run_id = runs.log(server, runs.read(server, one.run_id), "say").split()
        assert int(index) == number
        assert day == now[:8] and len(now) == 14
        assert run_id == one.run_id
    assert len({one.scheduled_at for one in found}) == len(found)
    left = len(runs_of(client, made.recurring_run_id))
    let_seconds_pass(client, experiment, name, package)
    assert len(runs_of(client, made.recurring_run_id)) <= left + 1
    client.delete_recurring_run(made.recurring_run_id)
    assert runs_of(client, made.recurring_run_id), "its runs stay"


@pytest.mark.covers(
    "Recurring runs: a cron expression makes runs", "Recurring runs: the latest version of a pipeline"
)
def test_a_cron_expression_makes_runs_of_the_latest_version(client, server, experiment, name, pipeline):
    made = client.recurring_runs.recurring_run_service_create_recurring_run(
        recurring_run=kfp_server_api.V2beta1RecurringRun(
            display_name=name,
            experiment_id=experiment.experiment_id,
            mode="ENABLE",
            max_concurrency="1",
            trigger=kfp_server_api.V2beta1Trigger(
                cron_schedule=kfp_server_api.V2beta1CronSchedule(cron="* * * * * ?")
            ),
            pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
                pipeline_id=pipeline.pipeline_id
            ),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters={}),
        )
    )
    wait_for_runs(client, server, made.recurring_run_id, 1)
    client.delete_recurring_run(made.recurring_run_id)


@pytest.mark.covers("Recurring runs: max_concurrency")
def test_no_more_runs_at_a_time_than_allowed(client, server, experiment, name, package, tmp_path, gate):
    file = tmp_path / "waiting.yaml"
    file.write_text(runs.package(waiting))
    made = recurring(
        client,
        experiment,
        name,
        str(file),
        interval_second=1,
        max_concurrency=1,
        params={"script": gate.shell},
    )
    gate.wait_reached()
    let_seconds_pass(client, experiment, name, package)
    assert len(runs_of(client, made.recurring_run_id)) == 1
    client.disable_recurring_run(made.recurring_run_id)
    gate.open()
    wait_for_runs(client, server, made.recurring_run_id, 1)
    client.delete_recurring_run(made.recurring_run_id)


@pytest.mark.covers("Recurring runs: catch-up of missed times, or not")
@pytest.mark.parametrize("no_catchup", [False, True])
def test_times_before_now_are_caught_up_unless_told_otherwise(
    client, server, experiment, name, package, no_catchup
):
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3 * 3600 - 60))
    made = recurring(
        client, experiment, name, package, interval_second=3600, start_time=start, max_concurrency=10,
        no_catchup=no_catchup,
    )  # fmt: skip
    expected = 1 if no_catchup else 3
    wait_for_runs(client, server, made.recurring_run_id, expected)
    let_seconds_pass(client, experiment, name, package)
    assert len(runs_of(client, made.recurring_run_id)) == expected
    client.delete_recurring_run(made.recurring_run_id)


@pytest.mark.parametrize(
    "trigger",
    [
        {},
        {"cron_schedule": {"cron": "whenever"}},
        {"cron_schedule": {"cron": "99 * * * * *"}},
        {"periodic_schedule": {"interval_second": "0"}},
        {"periodic_schedule": {"interval_second": "-5"}},
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(server, name, trigger):
    body = {
        "display_name": name,
        "mode": "ENABLE",
        "trigger": trigger,
        "pipeline_spec": runs.compiled(spoken),
        "runtime_config": {},
    }
    answer = server.http("POST", "/apis/v2beta1/recurringruns", json=body)
    assert answer.status_code == 400, answer.text


@pytest.mark.covers("Recurring runs: archiving an experiment disables them")
def test_archiving_an_experiment_disables_its_recurring_runs(client, experiment, name, package):
    made = recurring(client, experiment, name, package, interval_second=3600)
    client.archive_experiment(experiment.experiment_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    client.delete_recurring_run(made.recurring_run_id)


# -- who and how


@pytest.mark.covers(
    "kfp.Client.get_kfp_healthz", "kfp.Client.get_user_namespace", "kfp.Client.set_user_namespace"
)
def test_health_and_namespace(server, monkeypatch, tmp_path):
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "kfp" / "context.json"))
    client = kfp.Client(host=server.url)
    assert client.get_kfp_healthz().multi_user is not True
    assert client.get_user_namespace() == ""
    client.set_user_namespace("default")
    assert kfp.Client(host=server.url).get_user_namespace() == "default"


# -- the generated services


@pytest.mark.covers(
    "kfp.Client.auths", "kfp.Client.healthzs", "kfp.Client.reports", "kfp.Client.visualizations"
)
def test_services_that_have_no_method_of_their_own(client, server):
    client.auths.auth_service_authorize(namespace="default", resources="VIEWERS", verb="CREATE")
    assert client.healthzs.healthz_service_get_healthz() is not None
    for call in (
        lambda: client.reports.report_service_report_workflow("{}"),
        lambda: client.reports.report_service_report_scheduled_workflow("{}"),
        lambda: client.visualizations.visualization_service_create_visualization_v1("default", {}),
    ):
        # Agents that report what Argo does, and plots, are for other servers.
        with pytest.raises(ApiException) as refused:
            call()
        assert refused.value.status == 400 and json.loads(refused.value.body)["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/workflows", "{}"),
        ("POST", "/scheduledworkflows", "{}"),
        ("POST", "/visualizations/default", "{}"),
        ("POST", "/artifact_tasks", "{}"),
        ("POST", "/artifact_tasks:batchCreate", "{}"),
        ("POST", "/runs/{run}/tasks", "{}"),
        ("PATCH", "/runs/{run}/tasks/{run}", "{}"),
        ("POST", "/runs/{run}/tasks:batchUpdate", "{}"),
    ],
)
def test_what_only_the_engine_may_write_is_refused_with_a_reason(server, method, path, body):
    path = path.replace("{run}", str(uuid.uuid4()))
    answer = server.http(method, f"/apis/v2beta1{path}", data=body)
    assert answer.status_code in (400, 403, 404), answer.text
    assert len(answer.json()["message"]) > 20


@pytest.mark.covers("GET /apis/v1beta1/healthz")
def test_the_old_health_address_is_kept(server):
    assert server.http("GET", "/apis/v1beta1/healthz").ok


@pytest.mark.covers("POST /apis/v2beta1/artifacts", "POST /apis/v2beta1/artifacts:batchCreate")
def test_artifacts_made_elsewhere_are_recorded(server, tmp_path, name):
    def artifact(letter: str) -> dict:
        uri = f"{tmp_path}/{letter}"
        return {"artifact": {"name": f"{name}-{letter}", "type": "Model", "uri": uri, "metadata": {"k": 1}}}

    one = server.http("POST", "/apis/v2beta1/artifacts", json=artifact("a"))
    assert one.ok, one.text
    many = server.http(
        "POST", "/apis/v2beta1/artifacts:batchCreate", json={"artifacts": [artifact("b"), artifact("c")]}
    )
    assert many.ok and len(many.json()["artifacts"]) == 2, many.text
    found = server.get(f"/artifacts/{one.json()['artifact_id']}")
    assert (found["name"], found["metadata"]) == (f"{name}-a", {"k": 1})


@pytest.mark.covers("POST /apis/v2beta1/tasks:findCached")
def test_an_earlier_result_is_found_by_its_key(server, name):
    @dsl.pipeline(name=name)
    def pipeline():
        say(text=name)

    run = runs.finish(server, runs.submit_as_compiled(server, pipeline))
    entry = server.get("/cache_entries", pipeline_name=name)["cache_entries"][0]
    asked = {"pipeline_name": name, "cache_fingerprint": entry["key"]}
    found = server.http("POST", "/apis/v2beta1/tasks:findCached", json=asked).json()
    assert found["task"]["run_id"] == run.id
    missing = {"pipeline_name": name, "cache_fingerprint": "none"}
    assert server.http("POST", "/apis/v2beta1/tasks:findCached", json=missing).json() == {}


def test_filters_have_an_address_of_their_own(client):
    service = kfp_server_api.DummyFilterServiceApi(client.runs.api_client)
    assert service.dummy_filter_service_get_filter() is not None


@pytest.mark.covers("kfp.Client.pipelines", "Pipelines: tags, and filtering by them", "Pipelines: PATCH")
def test_pipelines_and_versions_are_changed_and_tagged(client, server, pipeline, version, name):
    service, tag = client.pipelines, uuid.uuid4().hex
    path = f"/apis/v2beta1/pipelines/{pipeline.pipeline_id}"

    changed = server.http(
        "PATCH", path, json={"display_name": f"{name}-new", "description": "changed", "tags": {"team": tag}}
    )
    assert changed.ok, changed.text
    found = server.get(f"/pipelines/{pipeline.pipeline_id}")
    assert (found["display_name"], found["description"]) == (f"{name}-new", "changed")
    assert found["tags"] == {"team": tag}
    by_tag = client.list_pipelines(filter=matching(**{"tags.team": tag}))
    assert [p.pipeline_id for p in by_tag.pipelines] == [pipeline.pipeline_id]

    version_path = f"{path}/versions/{version.pipeline_version_id}"
    assert server.http("PATCH", version_path, json={"tags": {"stage": tag}}).ok
    listed = client.list_pipeline_versions(pipeline.pipeline_id, filter=matching(**{"tags.stage": tag}))
    assert len(listed.pipeline_versions) == 1

    for target in (path, version_path):
        assert server.http("PATCH", target, json={"tags": {}}).ok
        assert "tags" not in server.http("GET", target).json()
    service.pipeline_service_update_pipeline(
        pipeline.pipeline_id, kfp_server_api.V2beta1Pipeline(display_name=name, description="through the SDK")
    )
    service.pipeline_service_update_pipeline_version(
        pipeline.pipeline_id,
        version.pipeline_version_id,
        kfp_server_api.V2beta1PipelineVersion(display_name=f"{name}-renamed"),
    )
    found = client.get_pipeline(pipeline.pipeline_id)
    assert (found.display_name, found.description) == (name, "through the SDK")
    assert (
        client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id).display_name
        == f"{name}-renamed"
    )


@pytest.mark.covers("Pipelines: by name", "Pipelines: deleted with all versions")
def test_a_pipeline_is_found_by_name_and_deleted_with_its_versions(client, pipeline, name):
    service = client.pipelines
    assert service.pipeline_service_get_pipeline_by_name(name).pipeline_id == pipeline.pipeline_id
    not_found(service.pipeline_service_get_pipeline_by_name, f"{name}-none")
    service.pipeline_service_delete_pipeline(pipeline.pipeline_id, cascade=True)
    not_found(client.get_pipeline, pipeline.pipeline_id)


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


@pytest.mark.covers("Pipelines: created from a URL", "kfp.Client.pipeline_uploads")
def test_pipelines_and_versions_are_created_from_a_url(new_server, web, name):
    server = new_server(variables={"CORACLE_PRIVATE_URLS": "1"}).start()
    client = server.client
    folder, url = web
    (folder / "spoken.yaml").write_text(runs.package(spoken))
    source = kfp_server_api.V2beta1Url(pipeline_url=f"{url}/spoken.yaml")

    made = client.pipelines.pipeline_service_create_pipeline_and_version(
        kfp_server_api.V2beta1CreatePipelineAndVersionRequest(
            pipeline=kfp_server_api.V2beta1Pipeline(display_name=name),
            pipeline_version=kfp_server_api.V2beta1PipelineVersion(display_name=name, package_url=source),
        )
    )
    bare = client.pipelines.pipeline_service_create_pipeline(
        kfp_server_api.V2beta1Pipeline(display_name=f"{name}-bare")
    )
    version = client.pipelines.pipeline_service_create_pipeline_version(
        bare.pipeline_id,
        kfp_server_api.V2beta1PipelineVersion(
            display_name=f"{name}-v", pipeline_id=bare.pipeline_id, package_url=source
        ),
    )
    assert version.pipeline_spec["pipelineInfo"]["name"] == "client-methods"
    versions = client.list_pipeline_versions(made.pipeline_id).pipeline_versions
    assert versions[0].pipeline_spec["pipelineInfo"]["name"] == "client-methods"
    assert client.pipeline_uploads is not None

    answer = server.http(
        "POST",
        f"/apis/v2beta1/pipelines/{bare.pipeline_id}/versions",
        json={"display_name": f"{name}-none", "package_url": {"pipeline_url": f"{url}/none.yaml"}},
    )
    assert 400 <= answer.status_code < 500 and "404" in answer.text, answer.text


@pytest.mark.covers("Pipelines: a URL of this machine or of a private network is refused")
def test_a_private_url_is_not_fetched(server, web, name):
    folder, url = web
    (folder / "spoken.yaml").write_text(runs.package(spoken))
    answer = server.http(
        "POST",
        "/apis/v2beta1/pipelines/create",
        json={
            "pipeline": {"display_name": name},
            "pipeline_version": {
                "display_name": name,
                "package_url": {"pipeline_url": f"{url}/spoken.yaml"},
            },
        },
    )
    assert answer.status_code == 400 and "private" in answer.text, answer.text


@pytest.mark.covers("kfp.Client.experiments")
def test_experiments_of_the_generated_service(client, experiment):
    found = client.experiments.experiment_service_get_experiment(experiment.experiment_id)
    assert found.display_name == experiment.display_name


@pytest.mark.covers("Runs: the pipeline's latest version when none is named")
def test_a_run_of_a_pipeline_takes_its_latest_version(server, pipeline, package, client, name):
    latest = client.upload_pipeline_version(package, f"{name}-2", pipeline_id=pipeline.pipeline_id)
    answer = server.http(
        "POST",
        "/apis/v2beta1/runs",
        json={"display_name": name, "pipeline_version_reference": {"pipeline_id": pipeline.pipeline_id}},
    )
    assert answer.ok, answer.text
    run = runs.finish(server, answer.json()["run_id"])
    assert run.state == "SUCCEEDED"
    reference = run.body["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == latest.pipeline_version_id


@pytest.mark.covers("Runs: the bytes of an artifact")
def test_an_artifact_of_a_run_is_read(server):
    import base64

    from components import make_file

    @dsl.pipeline(name="read-artifact")
    def pipeline():
        make_file(text="the bytes")

    run = runs.succeed(server, pipeline)
    node = run.task("make-file")["pod_name"]
    for version in ("v2beta1", "v1beta1"):
        answer = server.http("GET", f"/apis/{version}/runs/{run.id}/nodes/{node}/artifacts/data:read")
        assert answer.ok, answer.text
        assert base64.b64decode(answer.json()["data"]) == b"the bytes"


@pytest.mark.covers("Runs: followed as a stream (`:watch`)")
def test_a_run_is_followed_as_a_stream(server):
    run_id = runs.submit(server, spoken)
    with requests.get(f"{server.url}/apis/v2beta1/runs/{run_id}:watch", stream=True, timeout=30) as stream:
        assert stream.ok
        text = "".join(line.decode() for line in stream.iter_lines())
    assert "SUCCEEDED" in text


@pytest.mark.covers("Tasks and artifacts: lists, single ones, links and lineage across runs")
def test_tasks_artifacts_and_their_lineage(server, tmp_path):
    from components import make_file, read_file
    from kfp.dsl import Dataset

    @dsl.pipeline(name="lineage-made")
    def made():
        read_file(data=make_file(text=uuid.uuid4().hex).outputs["data"])

    first = runs.succeed(server, made)
    artifact = runs.artifacts(server, first.id)["data"]
    assert server.get(f"/artifacts/{artifact['artifact_id']}")["uri"] == artifact["uri"]
    task = runs.row(server, first.id, "read-file")
    assert server.get(f"/runs/{first.id}/tasks/{task['task_id']}")["name"] == "read-file"

    @dsl.pipeline(name="lineage-used")
    def used(uri: str):
        read_file(data=dsl.importer(artifact_uri=uri, artifact_class=Dataset, reimport=False).output)

    second = runs.succeed(server, used, uri=artifact["uri"])
    links = server.get("/artifact_tasks", artifact_ids=artifact["artifact_id"])["artifact_tasks"]
    assert {"OUTPUT"} <= {link["type"] for link in links}
    lineage = server.get(f"/artifacts/{artifact['artifact_id']}:lineage", direction="BOTH")
    assert first.id in [run["run_id"] for run in lineage["runs"]]
    assert "make-file" in [task["name"] for task in lineage["tasks"]]
    assert second.state == "SUCCEEDED"


@pytest.mark.covers("Tasks and artifacts: what a failed task was given, to try it by hand")
def test_what_a_failed_task_was_given_is_told(server):
    ended = runs.fail(server, waiting, script="exit 3")
    task = runs.row(server, ended.id, "run")
    told = server.get(f"/runs/{ended.id}/tasks/{task['task_id']}:debug")
    assert told["image"] == runs.SHELL_IMAGE
    assert told["command"][0] == "sh" and len(told["args"]) == 1
    assert told["executor_input"]["inputs"]["parameterValues"]["script"] == "exit 3"


@pytest.mark.covers("Storage: what retention would delete, and deleting it")
def test_what_nobody_needs_is_collected(new_server):
    from components import make_file

    @dsl.pipeline(name="collected")
    def pipeline():
        make_file(text="x" * 1000)

    server = new_server().start()
    old, new = runs.succeed(server, pipeline), runs.succeed(server, spoken)
    uri = runs.artifacts(server, old.id)["data"]["uri"]
    body = {"dry_run": True, "keep_last": 1}
    planned = server.http("POST", "/apis/v2beta1/storage:collect", json=body)
    assert planned.ok, planned.text
    assert uri in planned.text
    with open(uri) as kept:
        assert len(kept.read()) == 1000
    assert server.http("POST", "/apis/v2beta1/storage:collect", json={**body, "dry_run": False}).ok
    with pytest.raises(FileNotFoundError):
        open(uri).close()
    assert runs.log(server, runs.read(server, new.id), "say") == "hello\n"


# -- PipelinesClient


@pytest.fixture
def simple(server) -> PipelinesClient:
    return PipelinesClient(KubernetesBackendConfig(base_url=server.url, namespace="default"))


@pytest.mark.covers(
    "PipelinesClient.upload_pipeline",
    "PipelinesClient.get_pipeline",
    "PipelinesClient.get_pipeline_version",
    "PipelinesClient.list_pipelines",
    "PipelinesClient.list_pipeline_versions",
    "PipelinesClient.delete_pipeline",
)
def test_pipelines_by_name(simple, name, package):
    first = simple.upload_pipeline(spoken, name=name, version=f"{name}-v1", description="words")
    second = simple.upload_pipeline(package, name=name, version=f"{name}-v2")
    assert simple.get_pipeline(name).pipeline_id == first.pipeline_id == second.pipeline_id
    for version in (first, second):
        found = simple.get_pipeline_version(name, version.display_name)
        assert found.pipeline_version_id == version.pipeline_version_id
    assert {f"{name}-v1", f"{name}-v2"} == {first.display_name, second.display_name}
    assert len(simple.list_pipeline_versions(name).pipeline_versions) == 2
    assert simple.list_pipelines(page_size=1).pipelines
    simple.delete_pipeline(name, version=f"{name}-v2")
    assert len(simple.list_pipeline_versions(name).pipeline_versions) == 1
    simple.upload_pipeline(spoken, name=name)
    with pytest.raises(ValueError):
        simple.delete_pipeline(name)
    simple.delete_pipeline(name, force=True)
    with pytest.raises(ValueError):
        simple.get_pipeline(name)


@pytest.mark.covers(
    "PipelinesClient.run",
    "PipelinesClient.get_run",
    "PipelinesClient.list_runs",
    "PipelinesClient.wait_for_run_status",
)
def test_runs_by_name_by_function_and_by_file(simple, name, package):
    simple.create_experiment(name)
    simple.upload_pipeline(spoken, name=name)
    started = [
        simple.run(name, params={"text": "by name"}, experiment=name, name=f"{name}-1"),
        simple.run(spoken, experiment=name),
        simple.run(package, experiment=name),
        simple.run(simple.get_pipeline(name), experiment=name),
    ]
    seen = []
    for one in started:
        ended = simple.wait_for_run_status(one, timeout=60, polling_interval=1, callbacks=[seen.append])
        assert ended.state == "SUCCEEDED"
    assert len(seen) == 4
    assert simple.get_run(started[0].run_id).display_name == f"{name}-1"
    assert len(simple.list_runs(experiment=name, status="succeeded").runs) == 4
    assert len(simple.list_runs(experiment=name, pipeline=name).runs) == 2


@pytest.mark.covers("PipelinesClient.wait_for_run_status")
def test_a_wait_ends_for_a_run_that_was_stopped(simple, server, gate):
    started = simple.run(waiting, params={"script": gate.shell})
    gate.wait_reached()
    simple.wait_for_run_status(started, status={"running"}, timeout=30, polling_interval=1)
    simple.kfp_client.terminate_run(started.run_id)
    ended = simple.wait_for_run_status(started, timeout=60, polling_interval=1)
    assert ended.state == "CANCELED"


@pytest.mark.covers(
    "PipelinesClient.create_experiment",
    "PipelinesClient.get_experiment",
    "PipelinesClient.list_experiments",
    "PipelinesClient.delete_experiment",
    "PipelinesClient.kfp_client",
)
def test_experiments_by_name(simple, name):
    made = simple.create_experiment(name, description="words")
    assert simple.create_experiment(name).experiment_id == made.experiment_id
    assert simple.get_experiment(name).description == "words"
    assert simple.list_experiments(page_size=1).experiments
    assert simple.kfp_client.get_experiment(experiment_name=name).experiment_id == made.experiment_id
    simple.delete_experiment(name)
    with pytest.raises(ValueError):
        simple.get_experiment(name)
