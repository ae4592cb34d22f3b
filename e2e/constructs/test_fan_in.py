"""`dsl.Collected`: what a loop made, as one list, in the order of the iterations."""

from typing import List  # noqa: UP035 (the SDK reads the item's type from these)

import pytest
import runs
from components import double, fail, make_file, pair, read_files, say, say_list
from kfp import dsl
from kfp.dsl import Dataset


def joined(server, run_id: str, name: str = "say-list"):
    return runs.row(server, run_id, name)["inputs"]["parameters"]["items"]


@dsl.component(base_image="python:3.11")
def nap_and_double(number: int) -> int:
    """The first iterations end last."""
    import time

    time.sleep(0.4 - number / 10)
    return 2 * number


@pytest.mark.covers("Fan-in: parameters", "dsl.Collected", "dsl.component")
def test_parameters_are_collected_in_the_order_of_the_iterations(server):
    @dsl.pipeline(name="collect")
    def pipeline() -> List[int]:  # noqa: UP006
        with dsl.ParallelFor([1, 2, 3]) as number:
            made = nap_and_double(number=number)
        say_list(items=dsl.Collected(made.output))
        return dsl.Collected(made.output)

    run = runs.succeed(server, pipeline)
    assert joined(server, run.id) == [2, 4, 6]
    assert runs.result(server, run.id) == [2, 4, 6]


@pytest.mark.covers("Fan-in: of a nested loop")
def test_loops_in_loops_make_lists_of_lists(server):
    @dsl.pipeline(name="collect-nested")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as outer:
            with dsl.ParallelFor(["1", "2", "3"]) as inner:
                made = pair(left=outer, right=inner)
            say_list(items=dsl.Collected(made.outputs["out"])).set_display_name("each")
        say_list(items=dsl.Collected(made.outputs["out"])).set_display_name("all")

    run = runs.succeed(server, pipeline)
    each = runs.iterated(server, run.id, "each")
    lists = [["a1", "a2", "a3"], ["b1", "b2", "b3"]]
    assert [each[place]["inputs"]["parameters"]["items"] for place in sorted(each)] == lists
    assert joined(server, run.id, "all") == lists


@pytest.mark.covers("Fan-in: artifacts", "dsl.Dataset", "dsl.Input")
def test_artifacts_are_collected_in_the_order_of_the_iterations(server):
    @dsl.pipeline(name="collect-artifacts")
    def pipeline():
        with dsl.ParallelFor(["a", "b", "c"]) as text:
            made = make_file(text=text)
        read_files(data=dsl.Collected(made.outputs["data"]))

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "read-files", "Output") == "a,b,c"


@pytest.mark.covers("Fan-in: artifacts of a nested loop")
def test_artifacts_of_loops_in_loops_come_in_order(server):
    @dsl.pipeline(name="collect-artifacts-nested")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as outer, dsl.ParallelFor(["1", "2"]) as inner:
            made = make_file(text=pair(left=outer, right=inner).outputs["out"])
        read_files(data=dsl.Collected(made.outputs["data"]))

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "read-files", "Output") == "a1,a2,b1,b2"


@pytest.mark.covers("Fan-in: out of a nested pipeline", "Loops: around a nested pipeline")
def test_a_nested_pipeline_gives_out_what_its_loop_made(server):
    @dsl.pipeline(name="inner")
    def inner(numbers: List[int]) -> List[int]:  # noqa: UP006
        with dsl.ParallelFor(numbers) as number:
            made = double(number=number)
        return dsl.Collected(made.outputs["out"])

    @dsl.pipeline(name="collect-out")
    def pipeline(numbers: List[int] = [1, 2]):  # noqa: B006, UP006
        say_list(items=inner(numbers=numbers).output)
        with dsl.ParallelFor(["x", "y"]) as letter:
            again = inner(numbers=numbers)
            say(text=letter).after(again)
        say_list(items=dsl.Collected(again.output)).set_display_name("again")

    run = runs.succeed(server, pipeline)
    assert joined(server, run.id) == [2, 4]
    assert joined(server, run.id, "again") == [[2, 4], [2, 4]]


@pytest.mark.covers("Fan-in: of an empty loop")
def test_an_empty_loop_makes_an_empty_list(server):
    @dsl.pipeline(name="collect-nothing")
    def pipeline(numbers: List[int]):  # noqa: UP006
        with dsl.ParallelFor(numbers) as number:
            made = double(number=number)
        say_list(items=dsl.Collected(made.outputs["out"]))

    run = runs.succeed(server, pipeline, numbers=[])
    assert joined(server, run.id) == []


@pytest.mark.covers("Fan-in: of a loop that failed")
def test_a_failed_loop_is_not_collected(server):
    @dsl.pipeline(name="collect-failed")
    def pipeline():
        with dsl.ParallelFor([1, 2]) as number:
            made = double(number=number).after(fail())
        say_list(items=dsl.Collected(made.outputs["out"]))

    run = runs.fail(server, pipeline)
    assert run.states().get("say-list", "SKIPPED") != "SUCCEEDED"


@pytest.mark.covers("Artifacts: lists out of pipelines and into components")
def test_a_pipeline_gives_out_a_list_of_artifacts(server):
    @dsl.pipeline(name="many")
    def many() -> List[Dataset]:  # noqa: UP006
        with dsl.ParallelFor(["p", "q"]) as text:
            made = make_file(text=text)
        return dsl.Collected(made.outputs["data"])

    @dsl.pipeline(name="list-out")
    def pipeline() -> List[Dataset]:  # noqa: UP006
        made = many()
        read_files(data=made.output)
        return made.output

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "read-files", "Output") == "p,q"
    root = next(row for row in runs.rows(server, run.id) if row["type"] == "ROOT")
    assert runs.texts(runs.carried(server, root, "outputs", "Output")) == ["p", "q"]
