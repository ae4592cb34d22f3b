"""Stopping a run: its processes end, what it did so far stays."""

import runs
from kfp import dsl


def waiting(gate):
    """A pipeline whose task says something, leaves a file, and waits at the gate."""

    @dsl.container_component
    def wait(command: str, out: dsl.Output[dsl.Artifact]):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE,
            command=["sh", "-c", 'echo at work; echo half > "$1"; eval "$0"'],
            args=[command, out.path],
        )

    @dsl.container_component
    def say(text: str):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo"], args=[text])

    @dsl.pipeline(name="waiting")
    def pipeline(command: str = gate.shell):
        say(text="afterwards").after(wait(command=command))

    return pipeline


def test_a_stopped_run_ends_canceled_and_keeps_its_log(server, gate):
    run_id = runs.submit(server, waiting(gate))
    gate.wait_reached()
    server.client.terminate_run(run_id)
    run = runs.finish(server, run_id)

    assert run.state == "CANCELED", run.describe()
    assert run.states()["wait"] == "CANCELED"
    assert run.states().get("say") in (None, "CANCELED", "SKIPPED")
    assert "at work" in runs.log(server, run, "wait")
    assert "executor-logs" in runs.artifacts(server, run_id)


def test_a_stopped_run_leaves_no_process(server, gate):
    run_id = runs.submit(server, waiting(gate))
    gate.wait_reached()
    server.client.terminate_run(run_id)
    gate.wait_left()
    assert runs.finish(server, run_id).state == "CANCELED"


def test_stopping_twice_and_stopping_what_has_ended_is_harmless(server, gate):
    run_id = runs.submit(server, waiting(gate))
    gate.wait_reached()
    server.client.terminate_run(run_id)
    server.http("POST", f"/apis/v2beta1/runs/{run_id}:terminate")
    assert runs.finish(server, run_id).state == "CANCELED"
    server.http("POST", f"/apis/v2beta1/runs/{run_id}:terminate")
    assert runs.read(server, run_id).state == "CANCELED"


def test_a_task_that_ignores_the_request_is_killed(server, gate):
    @dsl.container_component
    def stubborn(command: str):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE, command=["sh", "-c", "trap '' TERM INT; eval \"$0\""], args=[command]
        )

    @dsl.pipeline(name="stubborn")
    def pipeline(command: str):
        stubborn(command=command)

    run_id = runs.submit(server, pipeline, command=gate.shell)
    gate.wait_reached()
    server.client.terminate_run(run_id)
    gate.wait_left()
    assert runs.finish(server, run_id).state == "CANCELED"
