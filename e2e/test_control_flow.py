"""Order, nested pipelines and conditions."""

from datetime import datetime

import pytest
import runs
from kfp import dsl


@dsl.container_component
def write(text: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-c", 'printf %s "$0" > "$1"'], args=[text, out]
    )


@dsl.container_component
def count(number: int, out: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-c", 'printf %s "$0" > "$1"'], args=[number, out]
    )


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo"], args=[text])


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_a_task_starts_after_the_ones_it_names(server):
    @dsl.pipeline(name="order")
    def pipeline():
        first = say(text="1").set_display_name("first")
        second = say(text="2").set_display_name("second").after(first)
        say(text="3").set_display_name("third").after(first, second)

    run = runs.succeed(server, pipeline)
    times = [
        (moment(run.task(name)["start_time"]), moment(run.task(name)["end_time"]))
        for name in ("first", "second", "third")
    ]
    assert times[0][1] <= times[1][0] and times[1][1] <= times[2][0], times


def test_independent_tasks_are_at_work_together(server, gate):
    """One waits until the other was there, so that they end only if both run at a time."""

    @dsl.container_component
    def wait(command: str):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c"], args=[command])

    @dsl.pipeline(name="together")
    def pipeline(command: str):
        wait(command=command)
        say(text="meanwhile")

    run_id = runs.submit(server, pipeline, command=gate.shell)
    gate.wait_reached()
    run = runs.until(server, run_id, lambda run: run.states().get("say") == "SUCCEEDED")
    assert run.states()["wait"] == "RUNNING"
    gate.open()
    assert runs.finish(server, run_id).state == "SUCCEEDED"


def test_a_nested_pipeline_passes_values_in_and_out(server):
    @dsl.pipeline(name="innermost")
    def innermost(text: str) -> str:
        return write(text=f"{text}!").outputs["out"]

    @dsl.pipeline(name="inner")
    def inner(text: str) -> str:
        return innermost(text=f"({text})").output

    @dsl.pipeline(name="outer")
    def pipeline(text: str = "deep"):
        say(text=inner(text=text).output)

    run = runs.succeed(server, pipeline)
    assert runs.log(server, run, "say") == "(deep)!\n"


def test_tasks_of_a_nested_pipeline_name_their_parent(server):
    @dsl.pipeline(name="child")
    def child():
        say(text="inside")

    @dsl.pipeline(name="parent")
    def pipeline():
        child()

    run = runs.succeed(server, pipeline)
    assert run.task("say")["parent_task_id"] == run.task("child")["task_id"]


@dsl.pipeline(name="two-ways")
def two_ways(number: int):
    made = count(number=number)
    with dsl.If(made.outputs["out"] > 10, name="many"):
        say(text="many").set_display_name("say many")
    with dsl.If(made.outputs["out"] <= 10, name="few"):
        say(text="few").set_display_name("say few")


@pytest.mark.parametrize(("number", "taken", "left"), [(11, "many", "few"), (10, "few", "many")])
def test_a_condition_runs_one_branch_and_skips_the_other(server, number, taken, left):
    states = runs.succeed(server, two_ways, number=number).states()
    assert states[taken] == states[f"say {taken}"] == "SUCCEEDED"
    assert states[left] == "SKIPPED"
    assert states.get(f"say {left}", "SKIPPED") == "SKIPPED"


@dsl.pipeline(name="three-ways")
def three_ways(word: str) -> str:
    with dsl.If(word == "a"):
        first = write(text="took a").set_display_name("a")
    with dsl.Elif(word == "b"):
        second = write(text="took b").set_display_name("b")
    with dsl.Else():
        third = write(text="took neither").set_display_name("neither")
    taken = dsl.OneOf(first.outputs["out"], second.outputs["out"], third.outputs["out"])
    say(text=taken)
    return taken


@pytest.mark.parametrize(("word", "taken"), [("a", "a"), ("b", "b"), ("c", "neither")])
def test_a_chain_of_conditions_takes_the_first_that_holds(server, word, taken):
    run = runs.succeed(server, three_ways, word=word)
    assert runs.log(server, run, "say") == f"took {taken}\n"
    ran = [name for name in ("a", "b", "neither") if run.states().get(name) == "SUCCEEDED"]
    assert ran == [taken]


def test_conditions_compare_each_type(server):
    @dsl.pipeline(name="comparisons")
    def pipeline(text: str = "x", whole: int = 3, real: float = 0.5, truth: bool = True):
        with dsl.If(text != "y", name="text"):
            say(text="1")
        with dsl.If(whole >= 3, name="whole"):
            say(text="2")
        with dsl.If(real < 0.75, name="real"):
            say(text="3")
        with dsl.If(truth == True, name="truth"):  # noqa: E712 (the SDK overloads it)
            say(text="4")
        with dsl.If(whole == 4, name="never"):
            say(text="5")

    states = runs.succeed(server, pipeline).states()
    assert {name: states[name] for name in ("text", "whole", "real", "truth")} == dict.fromkeys(
        ("text", "whole", "real", "truth"), "SUCCEEDED"
    )
    assert states["never"] == "SKIPPED"


def test_conditions_nest(server):
    @dsl.pipeline(name="nested-conditions")
    def pipeline(outer: bool, inner: bool):
        with dsl.If(outer == True, name="outer"):  # noqa: E712
            say(text="outer").set_display_name("say outer")
            with dsl.If(inner == True, name="inner"):  # noqa: E712
                say(text="inner").set_display_name("say inner")

    both = runs.succeed(server, pipeline, outer=True, inner=True).states()
    assert both["say inner"] == "SUCCEEDED"
    half = runs.succeed(server, pipeline, outer=True, inner=False).states()
    assert half["say outer"] == "SUCCEEDED"
    assert half["inner"] == "SKIPPED"
    none = runs.succeed(server, pipeline, outer=False, inner=True).states()
    assert none["outer"] == "SKIPPED"
    assert "SUCCEEDED" not in (none.get("say outer"), none.get("say inner"))


def test_what_consumes_a_failed_task_does_not_start(server):
    @dsl.container_component
    def fail(out: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c", "exit 3"], args=[out])

    @dsl.pipeline(name="upstream")
    def pipeline():
        say(text=fail().outputs["out"]).set_display_name("after the failure")
        say(text="on its own").set_display_name("beside it")

    run = runs.fail(server, pipeline)
    states = run.states()
    assert states["fail"] == "FAILED"
    assert states["beside it"] == "SUCCEEDED"
    assert states.get("after the failure", "SKIPPED") in ("SKIPPED", "FAILED")
    if "after the failure" in states:
        assert "pod_name" not in run.task("after the failure"), "it was started"
