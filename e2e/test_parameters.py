"""Parameters: every type, from one component to the next, by default, by argument and by omission."""

from typing import NamedTuple

import pytest
import runs
from kfp import dsl


@dsl.component(base_image="python:3.11")
def make_one_of_each() -> NamedTuple(
    "Each", [("text", str), ("whole", int), ("real", float), ("truth", bool), ("many", list), ("named", dict)]
):
    from collections import namedtuple

    each = namedtuple("Each", ["text", "whole", "real", "truth", "many", "named"])
    return each(
        'a "quoted" line\nand a second, ünïcode', 9007199254740993, 2.5, True, [1, "two", None], {"k": [1]}
    )


@dsl.component(base_image="python:3.11")
def expect_one_of_each(text: str, whole: int, real: float, truth: bool, many: list, named: dict):
    assert text == 'a "quoted" line\nand a second, ünïcode', repr(text)
    assert whole == 9007199254740993 and isinstance(whole, int), repr(whole)
    assert real == 2.5 and isinstance(real, float), repr(real)
    assert truth is True, repr(truth)
    assert many == [1, "two", None], repr(many)
    assert named == {"k": [1]}, repr(named)


@pytest.mark.covers("Values: every type from task to task", "GET /launch/v1/spec", "PUT /launch/v1/report")
def test_each_type_passes_from_component_to_component(server):
    @dsl.pipeline(name="each-type")
    def pipeline():
        made = make_one_of_each().outputs
        expect_one_of_each(
            text=made["text"], whole=made["whole"], real=made["real"],
            truth=made["truth"], many=made["many"], named=made["named"],
        )  # fmt: skip

    runs.succeed(server, pipeline)


def test_each_type_is_taken_as_an_argument_of_the_run(server):
    @dsl.pipeline(name="arguments")
    def pipeline(text: str, whole: int, real: float, truth: bool, many: list, named: dict):
        expect_one_of_each(text=text, whole=whole, real=real, truth=truth, many=many, named=named)

    runs.succeed(
        server,
        pipeline,
        text='a "quoted" line\nand a second, ünïcode',
        whole=9007199254740993,
        real=2.5,
        truth=True,
        many=[1, "two", None],
        named={"k": [1]},
    )


@dsl.component(base_image="python:3.11")
def expect_text(actual: str, expected: str):
    assert actual == expected, f"{actual!r} is not {expected!r}"


def test_defaults_of_the_pipeline_hold_until_an_argument_is_given(server):
    @dsl.pipeline(name="pipeline-defaults")
    def pipeline(greeting: str = "hello", expected: str = "hello"):
        expect_text(actual=greeting, expected=expected)

    runs.succeed(server, pipeline)
    runs.succeed(server, pipeline, greeting="servus", expected="servus")


@dsl.component(base_image="python:3.11")
def expect_defaults(
    text: str = "t",
    whole: int = 3,
    truth: bool = False,
    many: list = [1, 2],  # noqa: B006 (that it arrives is what is tested)
    nothing: str = None,
):
    assert (text, whole, truth, many, nothing) == ("t", 3, False, [1, 2], None), locals()


def test_defaults_of_a_component_are_applied_when_nothing_is_passed(server):
    @dsl.pipeline(name="component-defaults")
    def pipeline():
        expect_defaults()

    runs.succeed(server, pipeline)


@dsl.component(base_image="python:3.11")
def expect_nothing(value: str = None):
    assert value is None, repr(value)


def test_an_optional_input_without_a_value_stays_away(server):
    @dsl.pipeline(name="optional-inner")
    def inner(value: str = None):
        expect_nothing(value=value)

    @dsl.pipeline(name="optional")
    def pipeline(value: str = None):
        expect_nothing()
        expect_nothing(value=value)
        inner()

    runs.succeed(server, pipeline)


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-c", 'printf "%s|" "$@"', "sh"], args=[text]
    )


def test_a_number_bound_to_a_text_input_becomes_text(server):
    """The SDK refuses to compile this, so the declared type is changed after it compiled."""

    @dsl.pipeline(name="to-text")
    def pipeline(value: str):
        say(text=value)

    document = runs.compiled(pipeline)
    for declared, value, text in (
        ("NUMBER_INTEGER", 42, "42"),
        ("NUMBER_DOUBLE", 2.5, "2.5"),
        ("BOOLEAN", True, "true"),
        ("LIST", [1, "a"], '[1,"a"]'),
        ("STRUCT", {"a": 1}, '{"a":1}'),
    ):
        document["root"]["inputDefinitions"]["parameters"]["value"]["parameterType"] = declared
        run = runs.finish(server, runs.submit_document(server, document, value=value))
        assert run.state == "SUCCEEDED", run.describe()
        assert f"{text}|" in runs.log(server, run, "say").replace(" ", ""), declared


def test_an_argument_holds_a_value_of_another_task(server):
    @dsl.container_component
    def write(out: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c"], args=[f"printf made > {out}"])

    @dsl.pipeline(name="embedded")
    def pipeline():
        say(text=f"<{write().outputs['out']}>")

    run = runs.succeed(server, pipeline)
    assert "<made>|" in runs.log(server, run, "say")


def test_names_and_ids_of_the_run_are_known_to_its_tasks(server):
    @dsl.container_component
    def tell(run: str, name: str, task: str):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo"], args=[run, name, task])

    @dsl.pipeline(name="who-am-i")
    def pipeline():
        tell(
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            task=dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
        )

    run = runs.succeed(server, pipeline)
    assert f"{run.id} {run.body['display_name']} tell" in runs.log(server, run, "tell")


def test_a_parameter_of_a_hundred_kilobytes_passes(server):
    @dsl.component(base_image="python:3.11")
    def make(size: int) -> str:
        return "x" * size

    @dsl.component(base_image="python:3.11")
    def measure(text: str, size: int):
        assert len(text) == size, len(text)

    @dsl.pipeline(name="large-parameter")
    def pipeline(size: int = 100_000):
        measure(text=make(size=size).output, size=size)

    runs.succeed(server, pipeline)
