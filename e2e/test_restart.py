"""What is still there after the server was stopped, or killed, and started again."""

import runs
from kfp import dsl


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo"], args=[text])


@dsl.pipeline(name="spoken")
def spoken(text: str = "before the restart"):
    say(text=text)


@dsl.container_component
def wait(command: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c"], args=[command])


@dsl.pipeline(name="interrupted")
def waiting(command: str):
    wait(command=command)
    wait(command="true").after(wait(command="true"))


def test_runs_experiments_logs_and_artifacts_survive_a_restart(new_server):
    server = new_server().start()
    run = runs.succeed(server, spoken)
    before = runs.artifacts(server, run.id)
    assert server.stop() == 0

    server.start()
    listed = server.client.list_runs().runs
    assert [(r.run_id, r.state) for r in listed] == [(run.id, "SUCCEEDED")]
    assert runs.log(server, runs.read(server, run.id), "say") == "before the restart\n"
    assert runs.artifacts(server, run.id) == before
    assert server.client.get_experiment(experiment_name="Default").experiment_id == run.body["experiment_id"]


def test_a_killed_server_loses_nothing_that_it_answered(new_server):
    server = new_server().start()
    run = runs.succeed(server, spoken)
    server.kill()

    server.start()
    assert runs.read(server, run.id).states() == run.states()


def test_a_task_at_work_outlives_a_killed_server_and_runs_once(new_server, gate):
    server = new_server().start()
    run_id = runs.submit(server, waiting, command=gate.shell)
    gate.wait_reached()
    server.kill()

    server.start()
    gate.open()
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert gate.visits == 1


def test_a_task_at_work_outlives_a_stopped_server(new_server, gate):
    server = new_server().start()
    run_id = runs.submit(server, waiting, command=gate.shell)
    gate.wait_reached()
    assert server.stop() == 0
    gate.open()

    server.start()
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert gate.visits == 1


def test_a_run_that_had_not_started_is_started_after_the_restart(new_server, gate):
    server = new_server().start()
    first = runs.submit(server, waiting, command=gate.shell)
    gate.wait_reached()
    second = runs.submit(server, spoken)
    server.kill()

    server.start()
    gate.open()
    runs.finish(server, first)
    assert runs.finish(server, second).state == "SUCCEEDED"
