"""What goes wrong while a task runs: each has a reason of its own and says what to do."""

import secrets
from pathlib import Path

import runs
from components import read_file
from kfp import dsl


def shell(script: str, image: str = runs.SHELL_IMAGE):
    """A pipeline of one task, `task`, that runs a shell script."""

    @dsl.container_component
    def task():
        return dsl.ContainerSpec(image=image, command=["sh", "-c", script])

    @dsl.pipeline(name="one-task")
    def pipeline():
        task()

    return pipeline


def expect(server, pipeline, reason: str, *words: str) -> runs.Run:
    """The task `task` fails with this reason, and its message has these words."""
    run = runs.fail(server, pipeline)
    failure = run.failure("task")
    assert reason in failure, failure
    for word in words:
        assert word in failure, failure
    # The run says it too, so that nobody has to open the task.
    assert reason in str(run.body.get("error", {})), run.body.get("error")
    return run


def test_a_command_that_exits_badly(server):
    run = expect(server, shell("echo so far; echo no further >&2; exit 3"), "CommandFailed", "3")
    log = runs.log(server, run, "task")
    assert "so far" in log and "no further" in log


def test_a_python_component_that_raises(server):
    @dsl.component(base_image="python:3.11")
    def task():
        raise ValueError("the data are empty")

    @dsl.pipeline(name="raises")
    def pipeline():
        task()

    run = expect(server, pipeline, "CommandFailed")
    assert "ValueError: the data are empty" in runs.log(server, run, "task")


def test_a_command_that_does_not_exist(server):
    @dsl.container_component
    def task():
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["no-such-program", "--fast"])

    @dsl.pipeline(name="not-found")
    def pipeline():
        task()

    expect(server, pipeline, "CommandNotFound", "no-such-program")


def test_a_file_that_may_not_be_run(server):
    @dsl.container_component
    def task():
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["/etc/passwd"])

    @dsl.pipeline(name="not-executable")
    def pipeline():
        task()

    expect(server, pipeline, "CommandNotExecutable", "/etc/passwd")


def test_an_image_without_a_runtime(server, image="registry.example/team/trainer:3"):
    expect(server, shell("true", image), "ImageNeedsContainerRuntime", image)


def test_an_output_parameter_that_is_not_written(server):
    @dsl.container_component
    def task(answer: dsl.OutputPath(int)):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["true"], args=[answer])

    @dsl.pipeline(name="missing-output")
    def pipeline():
        task()

    expect(server, pipeline, "OutputParameterMissing", "answer")


def test_an_output_parameter_of_another_type(server):
    @dsl.container_component
    def task(answer: dsl.OutputPath(int)):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE, command=["sh", "-c", 'printf forty-two > "$0"'], args=[answer]
        )

    @dsl.pipeline(name="wrong-output")
    def pipeline():
        task()

    expect(server, pipeline, "OutputParameterInvalid", "answer", "forty-two")


def test_a_task_that_is_killed_by_a_signal(server):
    expect(server, shell("kill -TERM $$"), "KilledBySignal", "SIGTERM")
    expect(server, shell("kill -SEGV $$"), "KilledBySignal", "SIGSEGV")


def test_a_task_that_uses_more_memory_than_its_limit(server):
    @dsl.component(base_image="python:3.11")
    def task():
        held = []
        while True:
            held.append(bytearray(16 * 1024 * 1024))

    @dsl.pipeline(name="out-of-memory")
    def pipeline():
        task().set_memory_limit("256Mi")

    expect(server, pipeline, "OOMKilled", "256Mi")


def test_a_package_that_does_not_exist(server):
    @dsl.component(base_image="python:3.11", packages_to_install=["coracle-has-no-such-package==99.1"])
    def task():
        pass

    @dsl.pipeline(name="no-package")
    def pipeline():
        task()

    expect(server, pipeline, "EnvironmentNotReady", "coracle-has-no-such-package")


def test_a_task_that_asks_for_more_than_the_machine_has(server):
    @dsl.container_component
    def task():
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["true"])

    @dsl.pipeline(name="too-much")
    def pipeline():
        task().set_cpu_request("4000").set_memory_request("1Gi")

    expect(server, pipeline, "RequestExceedsNode", "4000", "cpu")


def test_a_task_that_asks_for_a_gpu_that_is_not_there(server):
    @dsl.container_component
    def task():
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["true"])

    @dsl.pipeline(name="no-gpu")
    def pipeline():
        task().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(64)

    expect(server, pipeline, "RequestExceedsNode", "64", "nvidia.com/gpu")


def test_what_is_left_running_in_the_background_ends_with_its_task(server):
    mark = f"{secrets.randbelow(10**9) + 10**9}.5"
    run = runs.finish(server, runs.submit(server, shell(f"sleep {mark} & exit 0")))
    assert run.state == "SUCCEEDED", run.describe()
    left = [file for file in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in content(file)]
    assert not left, "a process outlived its task"


def content(file: Path) -> bytes:
    """A process's file, or nothing when the process ended meanwhile."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_what_this_version_does_not_run_says_so_and_where_to_look(server):
    @dsl.pipeline(name="from-a-registry")
    def pipeline():
        model = dsl.importer(artifact_uri="oci://registry.example/team/model:1", artifact_class=dsl.Dataset)
        read_file(data=model.output)

    run = runs.fail(server, pipeline)
    assert "NotSupported" in run.describe(), run.describe()
    assert "docs/pipelines.md" in str(run.body["error"])
