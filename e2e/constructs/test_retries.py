"""Tasks and nested pipelines that are tried again, and runs that are taken up again."""

from pathlib import Path

import pytest
import runs
from components import run, run_and_write, say, shell, write
from kfp import dsl


def failing_until(witness, name: str, attempt: int) -> str:
    """A script that fails until it was run so often."""
    return f'test "$({witness.shell(name)})" -ge {attempt}'


def attempts(server, run_id: str, name: str) -> list[dict]:
    return runs.row(server, run_id, name).get("attempts", [])


@pytest.mark.covers("Retries: of a task", "PipelineTask.set_retry")
def test_a_task_is_tried_again_until_it_succeeds(server, witness):
    @dsl.pipeline(name="retry")
    def pipeline(script: str):
        run(script=script).set_retry(num_retries=3)

    ended = runs.succeed(server, pipeline, script=failing_until(witness, "third", 3))
    assert witness.count("third") == 3
    assert len(attempts(server, ended.id, "run")) == 3


@pytest.mark.covers("Retries: a count that is used up")
def test_a_task_fails_when_its_retries_are_used_up(server, witness):
    @dsl.pipeline(name="retry-in-vain")
    def pipeline(script: str):
        run(script=script).set_retry(num_retries=2)

    ended = runs.fail(server, pipeline, script=failing_until(witness, "vain", 99))
    assert witness.count("vain") == 3
    assert "CommandFailed" in ended.failure("run")


@pytest.mark.covers("Retries: back-off with factor and maximum")
def test_the_pause_between_attempts_grows_to_its_maximum(server, witness):
    @dsl.pipeline(name="retry-slowly")
    def pipeline(script: str):
        run(script=script).set_retry(
            num_retries=3, backoff_duration="1s", backoff_factor=2.0, backoff_max_duration="2s"
        )

    runs.succeed(server, pipeline, script=failing_until(witness, "slow", 4))
    first, second, third = witness.gaps("slow")
    assert 0.9 <= first < 2, first
    assert 1.9 <= second < 3, second
    assert 1.9 <= third < 3, third


@pytest.mark.covers("Retries: in a loop")
def test_each_iteration_is_tried_again_for_itself(server, witness):
    @dsl.pipeline(name="retry-in-loop")
    def pipeline(first: str, second: str):
        with dsl.ParallelFor(["once", "twice"]) as name:
            with dsl.If(name == "once"):
                run(script=first).set_retry(num_retries=2)
            with dsl.If(name == "twice"):
                run(script=second).set_retry(num_retries=2)

    runs.succeed(
        server, pipeline, first=failing_until(witness, "once", 1), second=failing_until(witness, "twice", 2)
    )
    assert witness.counts() == {"once": 1, "twice": 2}


@pytest.mark.covers("Retries: of a nested pipeline")
def test_a_nested_pipeline_is_tried_again_as_a_whole(server, witness):
    @dsl.pipeline(name="shaky")
    def shaky(good: str, bad: str) -> str:
        done = run(script=bad).after(run(script=good).set_caching_options(False))
        return write(text="done").after(done).outputs["out"]

    @dsl.pipeline(name="retry-nested")
    def pipeline(good: str, bad: str):
        say(text=shaky(good=good, bad=bad).set_retry(num_retries=2).output)

    ended = runs.succeed(server, pipeline, good=witness.shell("good"), bad=failing_until(witness, "bad", 2))
    assert witness.count("bad") == 2
    assert witness.count("good") == 2
    assert runs.log(server, ended, "say") == "done\n"


@pytest.mark.covers("Retries: of a nested pipeline")
def test_a_nested_pipeline_fails_when_its_retries_are_used_up(server, witness):
    @dsl.pipeline(name="hopeless")
    def hopeless(bad: str):
        run(script=bad)

    @dsl.pipeline(name="retry-nested-in-vain")
    def pipeline(bad: str):
        hopeless(bad=bad).set_retry(num_retries=1)

    ended = runs.fail(server, pipeline, bad=failing_until(witness, "hopeless", 99))
    assert witness.count("hopeless") == 2
    assert ended.states()["hopeless"] == "FAILED"


@pytest.mark.covers("Retries: of a run (`:retry`)", "POST /apis/v2beta1/runs/{run_id}:retry")
def test_a_retried_run_keeps_what_succeeded(server, witness):
    @dsl.pipeline(name="inner")
    def inner(script: str, again: str):
        run(script=again).after(run_and_write(script=script))

    @dsl.pipeline(name="retry-run")
    def pipeline(first: str, flaky: str, deep: str, deep_flaky: str):
        made = run_and_write(script=first)
        middle = run(script=flaky).after(made).set_display_name("flaky")
        say(text=made.outputs["out"]).after(middle).set_display_name("last")
        inner(script=deep, again=deep_flaky)

    ended = runs.fail(
        server, pipeline, first=witness.shell("first"), flaky=failing_until(witness, "flaky", 2),
        deep=witness.shell("deep"), deep_flaky=failing_until(witness, "deep-flaky", 2),
    )  # fmt: skip
    assert ended.states()["flaky"] == "FAILED"

    server.client.runs.run_service_retry_run(ended.id)
    again = runs.until(
        server, ended.id, lambda run: run.state in runs.TERMINAL and run.states().get("last") == "SUCCEEDED"
    )
    assert again.state == "SUCCEEDED", again.describe()
    assert witness.counts() == {"first": 1, "flaky": 2, "deep": 1, "deep-flaky": 2}
    assert again.body.get("error") in (None, {})
    assert runs.log(server, again, "last").strip() == "1"


@pytest.mark.covers("Retries: of a run with loops")
def test_a_retried_run_repeats_only_the_iterations_that_failed(server, witness):
    @dsl.pipeline(name="retry-run-loop")
    def pipeline(before: str, after: str):
        with dsl.ParallelFor(["a", "b"], name="sweep") as name:
            with dsl.If(name == "a"):
                run(script=before)
            with dsl.If(name == "b"):
                run(script=after)

    ended = runs.fail(server, pipeline, before=witness.shell("a"), after=failing_until(witness, "b", 2))
    server.client.runs.run_service_retry_run(ended.id)
    again = runs.until(server, ended.id, lambda run: run.state == "SUCCEEDED")
    assert witness.counts() == {"a": 1, "b": 2}
    assert again.states()["sweep"] == "SUCCEEDED"


@pytest.mark.covers("Retries: of a run that was stopped")
def test_a_stopped_run_can_be_taken_up_again(server, witness, gate):
    @dsl.pipeline(name="retry-stopped")
    def pipeline(first: str, wait: str):
        run(script=wait).after(run(script=first)).set_display_name("waiting")

    run_id = runs.submit(server, pipeline, first=witness.shell("first"), wait=gate.shell)
    gate.wait_reached()
    server.client.terminate_run(run_id)
    assert runs.finish(server, run_id).state == "CANCELED"
    gate.open()
    server.client.runs.run_service_retry_run(run_id)
    again = runs.until(server, run_id, lambda run: run.state == "SUCCEEDED")
    assert witness.count("first") == 1
    assert again.states()["waiting"] == "SUCCEEDED"


def test_a_run_that_succeeded_or_is_at_work_is_not_retried(server, gate):
    @dsl.pipeline(name="retry-refused")
    def pipeline(script: str):
        run(script=script)

    run_id = runs.submit(server, pipeline, script=gate.shell)
    gate.wait_reached()
    for _ in range(2):
        answer = server.http("POST", f"/apis/v2beta1/runs/{run_id}:retry")
        assert answer.status_code in (400, 409), answer.text
        gate.open()
        runs.finish(server, run_id)


@pytest.mark.covers("Retries: exit handlers of a retried run")
def test_exit_tasks_run_again_with_the_new_outcome(server, witness):
    @dsl.component(base_image="python:3.11")
    def report(status: dsl.PipelineTaskFinalStatus) -> str:
        return status.state

    @dsl.pipeline(name="retry-exit")
    def pipeline(script: str):
        with dsl.ExitHandler(report()):
            run(script=script)

    ended = runs.fail(server, pipeline, script=failing_until(witness, "exit", 2))
    assert runs.value(server, ended.id, "report", "Output") == "FAILED"
    server.client.runs.run_service_retry_run(ended.id)
    runs.until(server, ended.id, lambda run: run.state == "SUCCEEDED")
    assert runs.value(server, ended.id, "report", "Output") == "COMPLETE"


@pytest.mark.covers("Retries: what a failed attempt left is not seen by the next")
def test_each_attempt_starts_with_clean_outputs(server, witness):
    @dsl.container_component
    def leave(script: str, out: dsl.Output[dsl.Dataset]):
        return shell(
            'ls -A "$(dirname "$2")"; echo half > "$2"; eval "$1"; echo whole > "$2"', script, out.path
        )

    @dsl.pipeline(name="retry-clean")
    def pipeline(script: str):
        leave(script=script).set_retry(num_retries=1)

    ended = runs.succeed(server, pipeline, script=failing_until(witness, "clean", 2))
    made = runs.artifacts(server, ended.id)["out"]
    assert Path(made["uri"]).read_text() == "whole\n"
    assert "out" not in runs.log(server, ended, "leave").split()
