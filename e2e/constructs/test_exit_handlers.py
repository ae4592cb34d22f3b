"""Tasks that run whatever happened before them, and what they are told of it."""

import json

import pytest
import runs
from components import fail, run, say, shell, write
from kfp import dsl


@dsl.component(base_image="python:3.11")
def report(status: dsl.PipelineTaskFinalStatus) -> dict:
    """Everything that an exit task is told."""
    return {
        "state": status.state,
        "resource": status.pipeline_job_resource_name,
        "task": status.pipeline_task_name,
        "code": status.error_code,
        "message": status.error_message,
    }


@dsl.pipeline(name="guarded")
def guarded(script: str):
    with dsl.ExitHandler(report()):
        run(script=script).set_display_name("guarded task")
        say(text="afterwards").set_display_name("beside")


@pytest.mark.covers(
    "Exit handlers: after success and after failure", "dsl.ExitHandler", "dsl.PipelineTaskFinalStatus"
)
def test_an_exit_task_runs_after_success_and_after_failure(server):
    started = {
        script: runs.submit(server, guarded, script=script)
        for script in ("true", "echo such a pity >&2; exit 7")
    }
    good, bad = runs.finish_all(server, started).values()

    assert good.state == "SUCCEEDED", good.describe()
    told = runs.value(server, good.id, "report", "Output")
    # KFP's own word for a group that ended well, which pipelines compare with.
    assert told["state"] == "COMPLETE"
    assert told["task"] == "exit-handler-1"
    assert "guarded" in told["resource"]
    assert told["code"] is None and told["message"] is None

    assert bad.state == "FAILED"
    assert bad.states()["report"] == "SUCCEEDED"
    assert bad.states()["beside"] == "SUCCEEDED"
    told = runs.value(server, bad.id, "report", "Output")
    assert told["state"] == "FAILED"
    assert told["task"] == "exit-handler-1"
    assert told["code"] not in (None, 0)
    assert "guarded task" in told["message"] or "such a pity" in told["message"], told


@pytest.mark.covers("Exit handlers: with inputs of the pipeline")
def test_an_exit_task_takes_the_pipelines_parameters(server):
    @dsl.component(base_image="python:3.11")
    def leave(name: str, status: dsl.PipelineTaskFinalStatus) -> str:
        return f"{name}: {status.state}"

    @dsl.pipeline(name="exit-inputs")
    def pipeline(name: str = "Ada"):
        with dsl.ExitHandler(leave(name=name), name="careful"):
            fail()

    ended = runs.fail(server, pipeline)
    assert runs.value(server, ended.id, "leave", "Output") == "Ada: FAILED"
    assert ended.states()["careful"] == "FAILED"


@pytest.mark.covers("Exit handlers: several in one pipeline")
def test_each_exit_task_is_told_of_its_own_group(server):
    @dsl.pipeline(name="exit-several")
    def pipeline():
        with dsl.ExitHandler(report().set_display_name("first report"), name="first"):
            fail()
        with dsl.ExitHandler(report().set_display_name("second report"), name="second"):
            say(text="well")

    ended = runs.fail(server, pipeline)
    first = runs.value(server, ended.id, "first report", "Output")
    second = runs.value(server, ended.id, "second report", "Output")
    assert (first["state"], first["task"]) == ("FAILED", "exit-handler-1")
    assert (second["state"], second["task"]) == ("COMPLETE", "exit-handler-2")


@pytest.mark.covers("Exit handlers: a nested pipeline as exit task")
def test_a_nested_pipeline_is_an_exit_task(server):
    @dsl.component(base_image="python:3.11")
    def state(status: dict) -> str:
        return status["state"]

    @dsl.pipeline(name="clean-up")
    def clean_up(status: dsl.PipelineTaskFinalStatus):
        word = state(status=status)
        with dsl.If(word.output == "FAILED", name="it failed"):
            say(text="failed").set_display_name("say failed")
        with dsl.If(word.output != "FAILED", name="it went well"):
            say(text="well").set_display_name("say well")

    @dsl.pipeline(name="exit-nested")
    def pipeline(script: str):
        with dsl.ExitHandler(clean_up()):
            run(script=script)

    started = {script: runs.submit(server, pipeline, script=script) for script in ("true", "exit 1")}
    good, bad = runs.finish_all(server, started).values()
    assert (good.state, bad.state) == ("SUCCEEDED", "FAILED")
    assert good.states()["it failed"] == "SKIPPED" and good.states()["say well"] == "SUCCEEDED"
    assert bad.states()["it went well"] == "SKIPPED" and bad.states()["say failed"] == "SUCCEEDED"


@pytest.mark.covers("Exit handlers: around loops, conditions and nested pipelines")
def test_a_group_may_hold_loops_and_further_groups(server):
    @dsl.pipeline(name="part")
    def part(text: str):
        write(text=text)

    @dsl.pipeline(name="exit-deep")
    def pipeline(go: bool = True):
        with dsl.ExitHandler(report(), name="outer"):
            with dsl.ParallelFor(["a", "b"]) as text:
                part(text=text)
            with dsl.If(go == True):  # noqa: E712
                fail()

    ended = runs.fail(server, pipeline)
    assert runs.values(server, ended.id, "write") == ["a", "b"]
    told = runs.value(server, ended.id, "report", "Output")
    assert told["state"] == "FAILED"
    assert "fail" in told["message"], told


@pytest.mark.covers("Exit handlers: a failing exit task")
def test_a_failing_exit_task_fails_the_run(server):
    @dsl.pipeline(name="exit-fails")
    def pipeline():
        with dsl.ExitHandler(fail()):
            say(text="well")

    assert runs.fail(server, pipeline).states()["say"] == "SUCCEEDED"


@pytest.mark.covers("Exit handlers: a skipped group")
def test_an_exit_task_runs_after_a_group_in_which_nothing_did(server):
    @dsl.pipeline(name="exit-skipped")
    def pipeline(go: bool = False):
        with dsl.ExitHandler(report()), dsl.If(go == True):  # noqa: E712
            say(text="never")

    ended = runs.succeed(server, pipeline)
    assert runs.value(server, ended.id, "report", "Output")["state"] == "COMPLETE"


@pytest.mark.covers("Exit handlers: after a run was stopped")
def test_an_exit_task_runs_when_its_run_is_stopped(server, gate):
    """As in Kubeflow, whose exit handlers run after a termination."""

    @dsl.pipeline(name="exit-canceled")
    def pipeline(script: str):
        with dsl.ExitHandler(report()):
            run(script=script)

    run_id = runs.submit(server, pipeline, script=gate.shell)
    gate.wait_reached()
    server.client.terminate_run(run_id)
    ended = runs.finish(server, run_id)
    assert ended.state == "CANCELED", ended.describe()
    assert ended.states()["run"] == "CANCELED"


@pytest.mark.covers(
    "Exit handlers: a task that ignores upstream failure",
    "PipelineTask.ignore_upstream_failure",
    "PipelineTask.after",
)
def test_a_task_may_ignore_that_what_it_needs_failed(server):
    @dsl.container_component
    def broken(out: dsl.OutputPath(str)):
        return shell("exit 5", out)

    @dsl.container_component
    def tidy(text: str = "nothing came"):
        return shell('printf "%s" "$1"', text)

    @dsl.pipeline(name="ignore-failure")
    def pipeline():
        tidy(text=broken().outputs["out"]).ignore_upstream_failure()
        say(text="x").after(broken()).set_display_name("strict")

    ended = runs.fail(server, pipeline)
    assert ended.states()["tidy"] == "SUCCEEDED"
    assert ended.states().get("strict", "SKIPPED") != "SUCCEEDED"
    assert runs.log(server, ended, "tidy") == "nothing came"


@pytest.mark.covers("Exit handlers: after a skipped or a successful task that is ignored")
def test_a_task_that_ignores_failures_gets_the_value_when_there_is_one(server):
    @dsl.container_component
    def tidy(text: str = "nothing came"):
        return shell('printf "%s" "$1"', text)

    @dsl.pipeline(name="ignore-success")
    def pipeline():
        tidy(text=write(text="a value").outputs["out"]).ignore_upstream_failure()

    ended = runs.succeed(server, pipeline)
    assert runs.log(server, ended, "tidy") == "a value"


@pytest.mark.covers("Exit handlers: the status as a placeholder of a container")
def test_the_status_is_json_on_a_command_line(server):
    @dsl.container_component
    def tell(status: dsl.PipelineTaskFinalStatus):
        return shell('printf "%s" "$1"', status)

    @dsl.pipeline(name="exit-container")
    def pipeline():
        with dsl.ExitHandler(tell()):
            fail()

    ended = runs.fail(server, pipeline)
    told = json.loads(runs.log(server, ended, "tell"))
    assert told["state"] == "FAILED"
    assert told["pipelineTaskName"] == "exit-handler-1"
    assert "exit-container" in told["pipelineJobResourceName"]
    assert told["error"]["message"]
