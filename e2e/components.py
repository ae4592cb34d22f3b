"""Small components of shell and Python that many tests build their pipelines of."""

import runs
from kfp import dsl
from kfp.dsl import Dataset, Input, Output


def shell(script: str, *arguments) -> dsl.ContainerSpec:
    """A container that runs a script; its arguments are `$1`, `$2` and so on."""
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-ec", script, "sh"], args=list(arguments)
    )


@dsl.container_component
def bash(command: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["bash", "-ec"], args=[command])


@dsl.pipeline
def one_bash(command: str):
    bash(command=command)


@dsl.container_component
def say(text: str):
    return shell('printf "%s\\n" "$1"', text)


@dsl.container_component
def say_list(items: list):
    return shell('printf "%s\\n" "$1"', items)


@dsl.container_component
def say_number(number: int):
    return shell('printf "%s\\n" "$1"', number)


@dsl.container_component
def write(text: str, out: dsl.OutputPath(str)):
    return shell('printf %s "$1" > "$2"', text, out)


@dsl.container_component
def pair(left: str, right: str, out: dsl.OutputPath(str)):
    return shell('printf %s%s "$1" "$2" > "$3"', left, right, out)


@dsl.container_component
def count(number: int, out: dsl.OutputPath(int)):
    return shell('printf %s "$1" > "$2"', number, out)


@dsl.container_component
def double(number: int, out: dsl.OutputPath(int)):
    return shell('printf %s "$(($1 * 2))" > "$2"', number, out)


@dsl.container_component
def make_list(json: str, out: dsl.OutputPath(list)):
    return shell('printf %s "$1" > "$2"', json, out)


@dsl.container_component
def make_file(text: str, data: Output[Dataset]):
    return shell('printf %s "$1" > "$2"', text, data.path)


@dsl.container_component
def read_file(data: Input[Dataset]):
    return shell('cat "$1"', data.path)


@dsl.container_component
def run(script: str):
    """Runs a script that the pipeline is given when it starts."""
    return shell('eval "$1"', script)


@dsl.container_component
def run_and_write(script: str, out: dsl.OutputPath(str)):
    """Runs a script; what it prints is the output."""
    return shell('eval "$1" > "$2"', script, out)


@dsl.container_component
def fail(code: int = 3):
    return shell('echo "this task fails on purpose" >&2; exit "$1"', code)


@dsl.component(base_image="python:3.11")
def read_files(data: Input[list[Dataset]]) -> str:
    """What the files hold, in order, with commas between."""
    found = []
    for artifact in data:
        with open(artifact.path) as file:
            found.append(file.read())
    return ",".join(found)


@dsl.component(base_image="python:3.11")
def write_all(texts: list) -> list:
    """The same list, from Python."""
    return texts
