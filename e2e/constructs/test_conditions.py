"""Conditions: every comparison, chains of them, what comes out of branches, and what needs a skipped one."""

import pytest
import runs
from components import count, fail, make_file, read_file, say, write
from kfp import dsl
from kfp.dsl import Dataset

COMPARISONS = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


@pytest.mark.covers("Conditions: every comparison of numbers", "Conditions: two values of tasks", "dsl.If")
def test_numbers_of_tasks_and_constants_are_compared(server):
    @dsl.pipeline(name="compare-numbers")
    def pipeline():
        three, five = count(number=3).set_display_name("three"), count(number=5).set_display_name("five")
        for sign, holds in COMPARISONS.items():
            with dsl.If(holds(three.outputs["out"], 3), name=f"3 {sign} 3"):
                say(text="x")
            with dsl.If(holds(three.outputs["out"], 5), name=f"3 {sign} 5"):
                say(text="x")
            with dsl.If(holds(five.outputs["out"], three.outputs["out"]), name=f"5 {sign} 3"):
                say(text="x")

    states = runs.succeed(server, pipeline).states()
    for sign, holds in COMPARISONS.items():
        for left, right in ((3, 3), (3, 5), (5, 3)):
            expected = "SUCCEEDED" if holds(left, right) else "SKIPPED"
            assert states[f"{left} {sign} {right}"] == expected, f"{left} {sign} {right}"


@pytest.mark.covers("Conditions: text, doubles and booleans", "dsl.Condition")
def test_text_doubles_and_booleans_are_compared(server):
    @dsl.pipeline(name="compare-types")
    def pipeline(text: str = "b", real: float = 1.5, truth: bool = True, odd: str = 'say "5" ü'):
        with dsl.If(text == "b", name="equal"):
            say(text="x")
        with dsl.If(text > "a", name="after"):
            say(text="x")
        with dsl.If(text < "a", name="before"):
            say(text="x")
        with dsl.If(real >= 1.25, name="real"):
            say(text="x")
        with dsl.If(real > 2, name="real and whole"):
            say(text="x")
        with dsl.If(truth != True, name="untrue"):  # noqa: E712 (the SDK overloads it)
            say(text="x")
        with dsl.If(odd == 'say "5" ü', name="quoted"):
            say(text="x")
        with dsl.Condition(text != "z", name="old name"):
            say(text="x")

    states = runs.succeed(server, pipeline).states()
    held = ("equal", "after", "real", "quoted", "old name")
    assert {name: states[name] for name in held} == dict.fromkeys(held, "SUCCEEDED")
    left = ("before", "real and whole", "untrue")
    assert {name: states[name] for name in left} == dict.fromkeys(left, "SKIPPED")


@dsl.pipeline(name="grade")
def grade(points: int) -> str:
    with dsl.If(points >= 90):
        first = write(text="A").set_display_name("a")
    with dsl.Elif(points >= 80):
        second = write(text="B").set_display_name("b")
    with dsl.Elif(points >= 70):
        third = write(text="C").set_display_name("c")
    with dsl.Else():
        fourth = write(text="D").set_display_name("d")
    taken = dsl.OneOf(*(task.outputs["out"] for task in (first, second, third, fourth)))
    say(text=taken)
    return taken


@pytest.mark.covers(
    "Conditions: If, Elif and Else", "dsl.Elif", "dsl.Else", "dsl.OneOf", "Conditions: OneOf of parameters"
)
def test_of_a_chain_the_first_that_holds_is_taken(server):
    points = {"A": 95, "B": 85, "C": 70, "D": 3}
    ended = runs.finish_all(
        server, {letter: runs.submit(server, grade, points=n) for letter, n in points.items()}
    )
    for letter, run in ended.items():
        assert run.state == "SUCCEEDED", run.describe()
        assert runs.result(server, run.id) == letter
        assert runs.log(server, run, "say") == f"{letter}\n"
        ran = [name for name in "abcd" if run.states().get(name) == "SUCCEEDED"]
        assert ran == [letter.lower()]


@pytest.mark.covers("Conditions: OneOf of artifacts")
def test_the_artifact_of_the_branch_that_ran_comes_out(server):
    @dsl.pipeline(name="either")
    def either(left: bool) -> Dataset:
        with dsl.If(left == True):  # noqa: E712
            one = make_file(text="from the left")
        with dsl.Else():
            other = make_file(text="from the right")
        return dsl.OneOf(one.outputs["data"], other.outputs["data"])

    @dsl.pipeline(name="either-artifact")
    def pipeline(left: bool):
        read_file(data=either(left=left).output)

    started = {side: runs.submit(server, pipeline, left=side == "left") for side in ("left", "right")}
    for side, run in runs.finish_all(server, started).items():
        assert run.state == "SUCCEEDED", run.describe()
        assert runs.log(server, run, "read-file") == f"from the {side}"


@pytest.mark.covers("Conditions: OneOf out of nested pipelines and conditions")
def test_branches_may_be_nested_pipelines_and_further_conditions(server):
    @dsl.pipeline(name="shout")
    def shout(text: str) -> str:
        return write(text=f"{text}!").outputs["out"]

    @dsl.pipeline(name="deep-choice")
    def pipeline(a: int, b: int) -> str:
        with dsl.If(a == 1):
            with dsl.If(b == 1):
                inner_one = shout(text="a and b")
            with dsl.Else():
                inner_two = write(text="only a")
            one = dsl.OneOf(inner_one.output, inner_two.outputs["out"])
            first = write(text=one)
        with dsl.Else():
            second = shout(text="neither")
        return dsl.OneOf(first.outputs["out"], second.output)

    wanted = {(1, 1): "a and b!", (1, 2): "only a", (2, 1): "neither!"}
    started = {pair: runs.submit(server, pipeline, a=pair[0], b=pair[1]) for pair in wanted}
    for pair, run in runs.finish_all(server, started).items():
        assert run.state == "SUCCEEDED", run.describe()
        assert runs.result(server, run.id) == wanted[pair]


@pytest.mark.covers("Conditions: what waits for a skipped branch is skipped")
def test_what_needs_a_skipped_task_is_skipped_and_the_run_succeeds(server):
    """The SDK does not compile such a dependency any more; older documents have it."""

    @dsl.pipeline(name="skipped-upstream")
    def pipeline(go: bool = False):
        with dsl.If(go == True, name="branch"):  # noqa: E712
            write(text="never")
        say(text="1").set_display_name("ordered")
        say(text="2").set_display_name("after it").after(say(text="3").set_display_name("beside"))

    document = runs.compiled(pipeline)
    tasks = document["root"]["dag"]["tasks"]
    ordered = next(task for task in tasks.values() if task["taskInfo"]["name"] == "ordered")
    ordered["dependentTasks"] = [name for name, task in tasks.items() if task["taskInfo"]["name"] == "branch"]
    run = runs.finish(server, runs.submit_document(server, document))
    assert run.state == "SUCCEEDED", run.describe()
    states = run.states()
    assert states["branch"] == "SKIPPED"
    assert states["beside"] == states["after it"] == "SUCCEEDED"
    assert states.get("ordered", "SKIPPED") == "SKIPPED"


@pytest.mark.covers("Conditions: of an item of a loop", "Loops: inside a condition")
def test_conditions_are_decided_for_each_item_and_loops_may_be_inside_them(server):
    @dsl.pipeline(name="condition-in-loop")
    def pipeline(loop: bool = True):
        with (
            dsl.If(loop == True, name="outer"),  # noqa: E712
            dsl.ParallelFor([1, 2, 3]) as number,
            dsl.If(number >= 2),
        ):
            count(number=number)

    run = runs.succeed(server, pipeline)
    assert runs.values(server, run.id, "count") == [2, 3]
    none = runs.succeed(server, pipeline, loop=False)
    assert none.states()["outer"] == "SKIPPED"


@pytest.mark.covers("Conditions: over what failed")
def test_a_condition_on_a_failed_task_is_not_decided(server):
    @dsl.container_component
    def broken(out: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c", "exit 9"], args=[out])

    @dsl.pipeline(name="condition-on-failure")
    def pipeline():
        with dsl.If(broken().outputs["out"] == "x", name="branch"):
            say(text="never")
        fail().set_display_name("another")

    run = runs.fail(server, pipeline)
    assert run.states().get("branch", "SKIPPED") in ("SKIPPED", "FAILED")
    assert run.states().get("say") in (None, "SKIPPED", "FAILED")


@pytest.mark.covers("Conditions: parseJson and && || in a hand-written document")
def test_expressions_of_other_compilers_are_cel(server):
    @dsl.pipeline(name="expressions")
    def pipeline(text: str = "[1, 2]", number: int = 4):
        with dsl.If(number == 4, name="changed"):
            say(text=text)

    document = runs.compiled(pipeline)
    task = next(task for task in document["root"]["dag"]["tasks"].values() if "triggerPolicy" in task)
    name = "pipelinechannel--number"
    component = document["components"][task["componentRef"]["name"]]
    assert name in component["inputDefinitions"]["parameters"]
    for expression, holds in (
        (f"inputs.parameter_values['{name}'] > 3 && !(inputs.parameter_values['{name}'] > 5)", True),
        (f"inputs.parameter_values['{name}'] == 1 || inputs.parameter_values['{name}'] == 4", True),
        (f"int(inputs.parameter_values['{name}']) < 3", False),
        ("parseJson(inputs.parameter_values['pipelinechannel--text'])[1] == 2", True),
    ):
        task["triggerPolicy"]["condition"] = expression
        run = runs.finish(server, runs.submit_document(server, document))
        assert run.state == "SUCCEEDED", f"{expression}\n{run.describe()}"
        assert run.states()["changed"] == ("SUCCEEDED" if holds else "SKIPPED"), expression
