"""What is not run again because it was run before, and what is."""

import time
import uuid
from pathlib import Path

import pytest
import runs
from components import read_file, shell
from kfp import dsl
from kfp.dsl import Dataset, Input, Output


@dsl.container_component
def make(script: str, text: str, data: Output[Dataset], out: dsl.OutputPath(str)):
    return shell('eval "$1"; printf %s "$2" > "$3"; printf %s "$2" > "$4"', script, text, data.path, out)


@dsl.container_component
def use(script: str, data: Input[Dataset], out: dsl.OutputPath(str)):
    return shell('eval "$1"; cat "$2" > "$3"', script, data.path, out)


def succeed(server, pipeline, **arguments) -> runs.Run:
    run = runs.finish(server, runs.submit_as_compiled(server, pipeline, **arguments))
    assert run.state == "SUCCEEDED", run.describe()
    return run


@pytest.fixture
def cached(witness):
    """A pipeline of a name of its own, `make` then `use`, each telling the witness."""

    def build(change=lambda made, used: None):
        @dsl.pipeline(name=name)
        def pipeline(text: str = "one", script: str = witness.shell("make")):
            made = make(script=script, text=text)
            used = use(script=witness.shell("use"), data=made.outputs["data"])
            change(made, used)

        return pipeline

    name = f"cached-{uuid.uuid4().hex[:8]}"
    return build


def states(run: runs.Run) -> tuple[str, str]:
    return run.states()["make"], run.states()["use"]


RAN, HIT = "SUCCEEDED", "SKIPPED"


@pytest.mark.covers("Caching: the same task again is not run", "PipelineTask.set_caching_options")
def test_the_second_run_reuses_what_the_first_made(server, cached, witness):
    pipeline = cached()
    first = succeed(server, pipeline)
    second = succeed(server, pipeline)
    assert states(first) == (RAN, RAN)
    assert states(second) == (HIT, HIT)
    assert witness.counts() == {"make": 1, "use": 1}

    made = {row["name"]: row for row in runs.rows(server, second.id)}
    assert made["make"]["state"] == made["use"]["state"] == "CACHED"
    assert made["use"]["outputs"]["parameters"]["out"] == "one"
    before = runs.carried(server, runs.row(server, first.id, "make"), "outputs", "data")[0]
    again = runs.carried(server, made["make"], "outputs", "data")[0]
    assert (again["artifact_id"], again["uri"]) == (before["artifact_id"], before["uri"])


@pytest.mark.covers("Caching: off for a task")
def test_a_task_may_say_that_it_is_never_reused(server, cached, witness):
    pipeline = cached(lambda made, used: made.set_caching_options(False))
    succeed(server, pipeline)
    second = succeed(server, pipeline)
    # What it made is the same bytes, so that what uses it is still known.
    assert states(second) == (RAN, HIT)
    assert witness.counts() == {"make": 2, "use": 1}


@pytest.mark.covers("Caching: off for a run")
def test_a_run_may_say_that_nothing_is_reused(server, cached, witness):
    pipeline = cached()
    succeed(server, pipeline)
    started = server.client.create_run_from_pipeline_func(pipeline, arguments={}, enable_caching=False)
    second = runs.finish(server, started.run_id)
    assert states(second) == (RAN, RAN)
    assert witness.counts() == {"make": 2, "use": 2}


@pytest.mark.covers("Caching: another value, command or image is another task")
def test_another_input_is_run(server, cached, witness):
    pipeline = cached()
    succeed(server, pipeline)
    other = succeed(server, pipeline, text="two")
    assert states(other) == (RAN, RAN)
    script = succeed(server, pipeline, script=witness.shell("other"))
    assert script.states()["make"] == RAN
    assert states(succeed(server, pipeline)) == (HIT, HIT)

    document = runs.compiled(pipeline)
    executors = document["deploymentSpec"]["executors"]
    executors["exec-make"]["container"]["image"] = "alpine:3.19"
    run = runs.finish(server, runs.submit_document(server, document))
    assert run.states()["make"] == RAN


@pytest.mark.covers("Caching: the content of an artifact counts, not its name")
def test_an_imported_file_that_changed_is_another_input(server, tmp_path):
    file = tmp_path / "data.txt"

    @dsl.pipeline(name=f"cached-import-{uuid.uuid4().hex[:8]}")
    def pipeline(uri: str):
        read_file(data=dsl.importer(artifact_uri=uri, artifact_class=Dataset, reimport=True).output)

    seen = []
    for text in ("one", "one", "two"):
        file.write_text(text)
        run = succeed(server, pipeline, uri=str(file))
        seen.append(run.states()["read-file"])
    assert seen == [RAN, HIT, RAN]


@pytest.mark.covers("Caching: an artifact that was deleted is made again")
def test_an_entry_whose_artifact_is_gone_is_a_miss(server, cached, witness):
    pipeline = cached()
    first = succeed(server, pipeline)
    Path(runs.artifacts(server, first.id)["data"]["uri"]).unlink()
    second = succeed(server, pipeline)
    assert second.states()["make"] == RAN
    assert witness.count("make") == 2
    again = runs.carried(server, runs.row(server, second.id, "make"), "outputs", "data")
    assert runs.texts(again) == ["one"]


@pytest.mark.covers("Caching: a key of one's own")
def test_a_key_of_ones_own_stands_for_the_inputs(server, cached, witness):
    pipeline = cached(lambda made, used: made.set_caching_options(True, cache_key="always the same"))
    succeed(server, pipeline)
    second = succeed(server, pipeline, text="two")
    assert second.states()["make"] == HIT
    assert witness.count("make") == 1
    assert runs.value(server, second.id, "make") == "one"


@pytest.mark.covers("Caching: of another pipeline")
def test_another_pipeline_has_its_own_entries(server, witness):
    made = []
    for _ in range(2):

        @dsl.pipeline(name=f"cached-alone-{uuid.uuid4().hex[:8]}")
        def pipeline(script: str):
            make(script=script, text="x")

        made.append(succeed(server, pipeline, script=witness.shell("make")).states()["make"])
    assert made == [RAN, RAN]


@pytest.mark.covers("Caching: a failed task is not reused")
def test_a_failed_task_is_run_again(server, cached, witness):
    pipeline = cached()
    script = f'test "$({witness.shell("flaky")})" -ge 2'
    assert runs.finish(server, runs.submit_as_compiled(server, pipeline, script=script)).state == "FAILED"
    assert states(succeed(server, pipeline, script=script)) == (RAN, RAN)


@pytest.mark.covers("Caching: in loops and nested pipelines")
def test_tasks_in_loops_and_nested_pipelines_are_reused(server, witness):
    name = f"cached-deep-{uuid.uuid4().hex[:8]}"

    @dsl.pipeline(name="part")
    def part(script: str, text: str):
        make(script=script, text=text)

    @dsl.pipeline(name=name)
    def pipeline(script: str):
        with dsl.ParallelFor(["a", "b"]) as text:
            part(script=script, text=text)

    script = witness.shell("deep")
    succeed(server, pipeline, script=script)
    second = succeed(server, pipeline, script=script)
    assert {row["state"] for row in runs.iterated(server, second.id, "make").values()} == {"CACHED"}
    assert witness.count("deep") == 2
    assert second.state == "SUCCEEDED"


@pytest.mark.covers("Caching: listed and invalidated by the API and the command line")
def test_entries_are_listed_and_invalidated(server, cached, witness):
    pipeline = cached()
    document = runs.compiled(pipeline)
    name = document["pipelineInfo"]["name"]
    succeed(server, pipeline)
    entries = server.get("/cache_entries", pipeline_name=name)["cache_entries"]
    assert {entry["task_name"] for entry in entries} == {"make", "use"}

    answer = server.http(
        "POST", "/apis/v2beta1/cache_entries:invalidate", json={"pipeline_name": name, "task_name": "make"}
    )
    assert answer.ok, answer.text
    assert states(succeed(server, pipeline)) == (RAN, HIT)

    key = next(entry["key"] for entry in entries if entry["task_name"] == "use")
    answer = server.http("DELETE", f"/apis/v2beta1/cache_entries/{key}", params={"pipeline_name": name})
    assert answer.ok, answer.text
    assert states(succeed(server, pipeline)) == (HIT, RAN)

    assert name in server.cli("cache", "ls").stdout
    server.cli("cache", "rm", "--pipeline", name)
    assert states(succeed(server, pipeline)) == (RAN, RAN)


@pytest.mark.covers("Caching: what survives a restart")
def test_entries_survive_a_restart(new_server, cached, witness):
    server = new_server().start()
    pipeline = cached()
    succeed(server, pipeline)
    assert server.stop() == 0
    server.start()
    assert states(succeed(server, pipeline)) == (HIT, HIT)


@pytest.mark.covers("Caching: a run that reuses everything is quick")
def test_a_run_that_reuses_everything_starts_no_process(server, cached, witness):
    pipeline = cached()
    succeed(server, pipeline)
    started = time.monotonic()
    second = succeed(server, pipeline)
    assert time.monotonic() - started < 5
    assert not any("pod_name" in task for task in second.tasks)
