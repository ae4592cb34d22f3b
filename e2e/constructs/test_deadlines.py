"""Time limits of tasks and runs, and stopping a run."""

import pytest
import runs
from components import run, say
from kfp import dsl, kubernetes


@pytest.mark.covers(
    "Deadlines: of a task", "kubernetes.set_timeout", "KubernetesExecutorConfig.active_deadline_seconds"
)
def test_a_task_that_takes_too_long_fails_and_others_go_on(server, gate):
    @dsl.pipeline(name="task-deadline")
    def pipeline(script: str):
        slow = run(script=script).set_display_name("slow")
        kubernetes.set_timeout(slow, seconds=1)
        quick = say(text="in time").set_display_name("quick")
        kubernetes.set_timeout(quick, seconds=60)

    run_id = runs.submit(server, pipeline, script=f"echo at work; {gate.shell}")
    gate.wait_left()
    ended = runs.finish(server, run_id)
    assert ended.state == "FAILED"
    assert "DeadlineExceeded" in ended.failure("slow")
    assert ended.states()["quick"] == "SUCCEEDED"
    assert "at work" in runs.log(server, ended, "slow")


@pytest.mark.covers("Deadlines: of a task that is retried")
def test_each_attempt_has_its_own_time(server, witness):
    @dsl.pipeline(name="deadline-retry")
    def pipeline(script: str):
        kubernetes.set_timeout(run(script=script).set_retry(num_retries=1), seconds=2)

    script = f'test "$({witness.shell("late")})" = 1 && sleep 60; true'
    runs.succeed(server, pipeline, script=script)
    assert witness.count("late") == 2


@pytest.mark.covers("Deadlines: of a run", "dsl.PipelineConfig")
def test_a_run_that_takes_too_long_fails(server, gate):
    @dsl.pipeline(name="run-deadline", pipeline_config=dsl.PipelineConfig(active_deadline_seconds=1))
    def pipeline(script: str):
        say(text="never").after(run(script=script))

    run_id = runs.submit_package(server, runs.package(pipeline), script=f"echo at work; {gate.shell}")
    gate.wait_left()
    ended = runs.finish(server, run_id)
    assert ended.state == "FAILED", ended.describe()
    assert "DeadlineExceeded" in str(ended.body["error"])
    assert ended.states().get("say", "SKIPPED") != "SUCCEEDED"
    assert "at work" in runs.log(server, ended, "run")


@pytest.mark.covers("Deadlines: exit tasks after a run's deadline")
def test_an_exit_task_runs_after_a_task_ran_out_of_time(server, gate):
    @dsl.component(base_image="python:3.11")
    def report(status: dsl.PipelineTaskFinalStatus) -> str:
        return f"{status.state} {status.error_message}"

    @dsl.pipeline(name="deadline-exit")
    def pipeline(script: str):
        with dsl.ExitHandler(report()):
            kubernetes.set_timeout(run(script=script), seconds=1)

    ended = runs.fail(server, pipeline, script=gate.shell)
    assert runs.value(server, ended.id, "report", "Output").startswith("FAILED")


@pytest.mark.covers(
    "Deadlines: terminate keeps logs and artifacts", "POST /apis/v2beta1/runs/{run_id}:terminate"
)
def test_a_stopped_loop_ends_every_process_and_keeps_its_logs(server, gate):
    @dsl.pipeline(name="stopped-loop")
    def pipeline(script: str):
        with dsl.ParallelFor(["a", "b"]) as text:
            say(text=text)
            run(script=script)

    run_id = runs.submit(server, pipeline, script=f"echo at work; {gate.shell}")
    gate.wait_reached()
    server.client.terminate_run(run_id)
    gate.wait_left()
    ended = runs.finish(server, run_id)
    assert ended.state == "CANCELED", ended.describe()
    stopped = runs.iterated(server, run_id, "run")
    assert {row["state"] for row in stopped.values()} <= {"CANCELED", "SKIPPED"}
    assert "at work" in runs.log(server, ended, "run")


@pytest.mark.covers("Deadlines: times to live of a run's objects")
def test_times_to_live_are_taken(server):
    config = dsl.PipelineConfig(
        ttl_seconds_after_finished=60, ttl_seconds_after_success=30, ttl_seconds_after_failure=90
    )

    @dsl.pipeline(name="short-lived", pipeline_config=config)
    def pipeline():
        say(text="x")

    run_id = runs.submit_package(server, runs.package(pipeline))
    assert runs.finish(server, run_id).state == "SUCCEEDED"
