"""`dsl.ParallelFor`: what it goes over, how many at a time, and inside one another."""

import json
from datetime import datetime
from typing import Dict, List  # noqa: UP035 (the SDK reads the item's type from these)

import pytest
import runs
from components import double, fail, make_file, make_list, pair, read_file, say, shell, write
from kfp import dsl
from kfp.dsl import Dataset, Input


def said(server, run_id: str, name: str = "say") -> list[str]:
    """What the tasks of a name were given as text, in the order of their iterations."""
    found = runs.iterated(server, run_id, name)
    return [found[place]["inputs"]["parameters"]["text"] for place in sorted(found)]


@pytest.mark.covers("Loops: a static list", "dsl.ParallelFor", "dsl.pipeline", "dsl.container_component")
def test_a_static_list_is_gone_over_in_order(server):
    @dsl.pipeline(name="loop-static")
    def pipeline():
        with dsl.ParallelFor([3, 1, 2]) as number:
            double(number=number)

    run = runs.succeed(server, pipeline)
    assert runs.values(server, run.id, "double") == [6, 2, 4]
    assert sorted(runs.iterated(server, run.id, "double")) == [(0,), (1,), (2,)]


@pytest.mark.covers("Loops: a static list of structs, and their fields")
def test_fields_of_structs_are_inputs_of_their_own(server):
    @dsl.pipeline(name="loop-fields")
    def pipeline():
        with dsl.ParallelFor([{"word": "a", "mark": "x"}, {"word": "b", "mark": "y"}]) as item:
            pair(left=item.word, right=item.mark)

    run = runs.succeed(server, pipeline)
    assert runs.values(server, run.id, "pair") == ["ax", "by"]


@pytest.mark.covers("Loops: a list of another task")
def test_a_list_of_another_task_is_gone_over(server):
    @dsl.pipeline(name="loop-upstream")
    def pipeline():
        with dsl.ParallelFor(make_list(json='["one", "two"]').outputs["out"]) as item:
            say(text=item)

    run = runs.succeed(server, pipeline)
    assert said(server, run.id) == ["one", "two"]


@pytest.mark.covers(
    "Loops: a pipeline's parameter", "Loops: an empty list", "Loops: fields of a parameter's structs"
)
def test_a_parameter_of_the_pipeline_is_gone_over(server):
    @dsl.pipeline(name="loop-parameter")
    def pipeline(texts: List[str], people: List[Dict[str, str]]):  # noqa: UP006
        with dsl.ParallelFor(texts, name="over-texts") as text:
            say(text=text)
        with dsl.ParallelFor(people, name="over-people") as person:
            say(text=person.called).set_display_name("greet")

    run = runs.succeed(server, pipeline, texts=["a", "b"], people=[{"called": "Ada"}, {"called": "Bob"}])
    assert said(server, run.id, "greet") == ["Ada", "Bob"]
    texts = [row for row in runs.rows(server, run.id) if row["display_name"] == "say"]
    assert len(texts) == 2

    empty = runs.succeed(server, pipeline, texts=[], people=[])
    assert empty.state == "SUCCEEDED"
    assert not [row for row in runs.rows(server, empty.id) if row["display_name"] in ("say", "greet")]


@pytest.mark.covers("Loops: text that holds a JSON list")
def test_text_that_holds_a_list_is_gone_over(server):
    """The SDK wants a list; older documents and hand-written ones pass text."""

    @dsl.pipeline(name="loop-text")
    def pipeline(texts: list):
        with dsl.ParallelFor(texts) as text:
            say(text=text)

    document = runs.compiled(pipeline)
    document["root"]["inputDefinitions"]["parameters"]["texts"]["parameterType"] = "STRING"
    for component in document["components"].values():
        for name, declared in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if name == "pipelinechannel--texts":
                declared["parameterType"] = "STRING"
    run = runs.finish(server, runs.submit_document(server, document, texts='["p", "q"]'))
    assert run.state == "SUCCEEDED", run.describe()
    assert said(server, run.id) == ["p", "q"]

    bad = runs.finish(server, runs.submit_document(server, document, texts="not a list"))
    assert bad.state == "FAILED"
    assert "LoopItemsInvalid" in bad.describe(), bad.describe()


@pytest.mark.covers("Loops: nested")
def test_loops_nest_and_see_the_items_around_them(server):
    @dsl.pipeline(name="loop-nested")
    def pipeline(words: List[str] = ["x", "y"]):  # noqa: B006, UP006
        with dsl.ParallelFor(["1", "2"]) as number, dsl.ParallelFor(words) as word:
            pair(left=number, right=word)

    run = runs.succeed(server, pipeline)
    assert runs.values(server, run.id, "pair") == ["1x", "1y", "2x", "2y"]
    assert sorted(runs.iterated(server, run.id, "pair")) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.covers("Loops: over a list that an iteration of another loop makes")
def test_the_inner_list_may_come_from_the_outer_iteration(server):
    @dsl.pipeline(name="loop-of-lists")
    def pipeline():
        with dsl.ParallelFor(['["a"]', '["b", "c"]', "[]"]) as text:
            made = make_list(json=text)
            with dsl.ParallelFor(made.outputs["out"]) as item:
                say(text=item)

    run = runs.succeed(server, pipeline)
    assert said(server, run.id) == ["a", "b", "c"]


def most_at_once(rows: list[dict]) -> int:
    """How many of these tasks were at work at the same moment, by their own timestamps."""
    moments = []
    for row in rows:
        start, end = (
            datetime.fromisoformat(row[key].replace("Z", "+00:00")) for key in ("start_time", "end_time")
        )
        moments += [(start, 1), (end, -1)]
    at_work = most = 0
    for _, change in sorted(moments):
        at_work += change
        most = max(most, at_work)
    return most


@dsl.container_component
def nap(number: int):
    return shell("sleep 0.3")


@pytest.mark.covers("Loops: parallelism")
def test_no_more_iterations_than_allowed_run_at_a_time(server):
    @dsl.pipeline(name="loop-limited")
    def limited():
        with dsl.ParallelFor([1, 2, 3, 4, 5], parallelism=2) as number:
            nap(number=number)

    @dsl.pipeline(name="loop-one-by-one")
    def one_by_one():
        with dsl.ParallelFor([1, 2, 3], parallelism=1) as number:
            nap(number=number)

    started = {most: runs.submit(server, pipeline) for most, pipeline in ((2, limited), (1, one_by_one))}
    for most, run in runs.finish_all(server, started).items():
        assert run.state == "SUCCEEDED", run.describe()
        seen = most_at_once(list(runs.iterated(server, run.id, "nap").values()))
        assert seen == most, f"{seen} at once, {most} allowed"


@dsl.pipeline(name="files")
def files(texts: List[str]) -> List[Dataset]:  # noqa: UP006
    with dsl.ParallelFor(texts) as text:
        made = make_file(text=text)
    return dsl.Collected(made.outputs["data"])


@pytest.mark.covers("Loops: artifacts (artifactIterator)")
def test_artifacts_are_gone_over(server):
    @dsl.pipeline(name="loop-artifacts")
    def pipeline(texts: List[str] = ["left", "right"]):  # noqa: B006, UP006
        with dsl.ParallelFor(items=files(texts=texts).output) as data:
            read_file(data=data)

    run = runs.succeed(server, pipeline)
    read = runs.iterated(server, run.id, "read-file")
    assert sorted(read) == [(0,), (1,)]
    given = [runs.texts(runs.carried(server, read[place], "inputs", "data")) for place in sorted(read)]
    assert given == [["left"], ["right"]]

    empty = runs.succeed(server, pipeline, texts=[])
    assert not runs.iterated(server, empty.id, "read-file")


@dsl.component(base_image="python:3.11")
def length(data: Input[Dataset]) -> int:
    with open(data.path) as file:
        return len(file.read())


@pytest.mark.covers("Loops: what an iteration makes is used in the same iteration")
def test_tasks_of_one_iteration_pass_values_and_artifacts_on(server):
    @dsl.pipeline(name="loop-chain")
    def pipeline():
        with dsl.ParallelFor(["a", "bbb"]) as text:
            measured = length(data=make_file(text=text).outputs["data"])
            double(number=measured.output)

    run = runs.succeed(server, pipeline)
    assert runs.values(server, run.id, "double") == [2, 6]


@pytest.mark.covers("Loops: after a whole loop")
def test_a_task_after_a_loop_starts_when_every_iteration_ended(server):
    @dsl.pipeline(name="loop-after")
    def pipeline():
        with dsl.ParallelFor([1, 2, 3]) as number:
            inside = nap(number=number)
        say(text="afterwards").after(inside)

    run = runs.succeed(server, pipeline)
    last = max(row["end_time"] for row in runs.iterated(server, run.id, "nap").values())
    assert last <= runs.row(server, run.id, "say")["start_time"]


@pytest.mark.covers("Loops: a failing iteration")
def test_a_failing_iteration_fails_the_loop_and_the_others_end(server):
    @dsl.pipeline(name="loop-failing")
    def pipeline():
        with dsl.ParallelFor(["0", "1", "2"], name="sweep") as number:
            with dsl.If(number == "1"):
                fail()
            with dsl.If(number != "1"):
                write(text=number)

    run = runs.fail(server, pipeline)
    written = runs.iterated(server, run.id, "write")
    assert {written[place]["state"] for place in written if place[0] in (0, 2)} == {"SUCCEEDED"}
    assert run.states()["sweep"] == "FAILED"


@pytest.mark.covers("Loops: a thousand iterations")
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_thousand_iterations_end(server):
    @dsl.pipeline(name="loop-thousand")
    def pipeline(numbers: List[int]):  # noqa: UP006
        with dsl.ParallelFor(numbers) as number:
            double(number=number)

    run = runs.succeed(server, pipeline, timeout=380, numbers=list(range(1000)))
    assert runs.values(server, run.id, "double") == [2 * number for number in range(1000)]


@pytest.mark.covers("Loops: an item that is a list or a struct")
def test_items_keep_their_shape(server):
    @dsl.container_component
    def show(item: dict):
        return shell('printf "%s" "$1"', item)

    @dsl.pipeline(name="loop-shapes")
    def pipeline(items: List[dict]):  # noqa: UP006
        with dsl.ParallelFor(items) as item:
            show(item=item)

    items = [{"a": [1, {"b": None}]}, {"a": "ü"}]
    run = runs.succeed(server, pipeline, items=items)
    shown = runs.iterated(server, run.id, "show")
    assert [shown[place]["inputs"]["parameters"]["item"] for place in sorted(shown)] == items
    assert json.loads(runs.log(server, runs.read(server, run.id), "show")) in items
