"""Large values, and components that break their word: each fails alone and says why."""

import pytest
import runs
from components import make_file, read_file, say, shell, write
from kfp import dsl
from kfp.dsl import Dataset, Output
from kfp_server_api import ApiException


@dsl.component(base_image="python:3.11")
def make(size: int) -> str:
    return "ü" * (size // 2)


@dsl.component(base_image="python:3.11")
def measure(text: str) -> int:
    return len(text.encode())


@pytest.mark.covers(
    "Values: 100 kB and 5 MB from task to task", "Values: large values in loops, conditions and arguments"
)
def test_large_values_pass_from_task_to_task(server):
    @dsl.pipeline(name="large-inner")
    def inner(text: str) -> str:
        with dsl.If(text != "x"):
            measure(text=text).set_display_name("inside")
        return write(text="kept").outputs["out"]

    @dsl.pipeline(name="large")
    def pipeline(size: int):
        made = make(size=size)
        measure(text=made.output).set_display_name("outside")
        inner(text=made.output)
        with dsl.ParallelFor(["a", "b"]) as letter:
            say(text=letter)
            measure(text=made.output).set_display_name("in a loop")

    started = {size: runs.submit(server, pipeline, size=size) for size in (100_000, 5_000_000)}
    for size, run in runs.finish_all(server, started).items():
        assert run.state == "SUCCEEDED", run.describe()
        assert runs.value(server, run.id, "outside", "Output") == size
        assert runs.value(server, run.id, "inside", "Output") == size
        assert runs.values(server, run.id, "in a loop", "Output") == [size, size]


@pytest.mark.covers("Values: a large argument of a run")
def test_a_run_may_be_given_a_large_argument(server):
    @dsl.pipeline(name="large-argument")
    def pipeline(text: str):
        measure(text=text)

    run = runs.succeed(server, pipeline, text="x" * 300_000)
    assert runs.value(server, run.id, "measure", "Output") == 300_000


@pytest.mark.covers("Values: a large list to loop over")
def test_a_large_list_is_gone_over(server):
    @dsl.component(base_image="python:3.11")
    def make_items() -> list:
        return ["x" * 100_000, "y" * 50_000]

    @dsl.pipeline(name="large-list")
    def pipeline():
        with dsl.ParallelFor(make_items().output) as item:
            measure(text=item)

    run = runs.succeed(server, pipeline)
    assert runs.values(server, run.id, "measure", "Output") == [100_000, 50_000]


@dsl.container_component
def huge(out: dsl.OutputPath(str)):
    return shell('head -c 100000000 /dev/zero | tr "\\0" x > "$1"', out)


@dsl.container_component
def wrong(out: dsl.OutputPath(int)):
    return shell('echo forty-two > "$1"', out)


@dsl.container_component
def nothing(out: dsl.OutputPath(str)):
    return shell("true", out)


@dsl.component(base_image="python:3.11")
def outside(data: Output[Dataset]):
    data.uri = "/etc/passwd"


@pytest.mark.covers(
    "Values: an output of 100 MB fails alone",
    "Values: an output of the wrong type fails alone",
    "Values: a missing output fails alone",
    "Values: an artifact outside the task's folder fails alone",
)
def test_a_component_that_breaks_its_word_fails_alone(server):
    @dsl.pipeline(name="broken-words")
    def pipeline():
        huge()
        wrong()
        nothing()
        outside()
        say(text="still here")

    run = runs.fail(server, pipeline)
    assert run.states()["say"] == "SUCCEEDED"
    for task, reason in (
        ("huge", "OutputParameterTooLarge"),
        ("wrong", "OutputParameterInvalid"),
        ("nothing", "OutputParameterMissing"),
        ("outside", "OutputOutsideFolder"),
    ):
        assert reason in run.failure(task), f"{task}: {run.failure(task)}"
    assert server.http("GET", "/healthz").ok


@pytest.mark.covers("Values: the exception's last line and the log's tail in a failure")
def test_a_failure_says_what_the_code_said(server):
    @dsl.component(base_image="python:3.11")
    def broken():
        print("reading the data")
        raise ValueError("the data are empty")

    @dsl.pipeline(name="raises")
    def pipeline():
        broken()

    run = runs.fail(server, pipeline)
    assert "ValueError: the data are empty" in run.failure("broken")


@pytest.mark.covers("Values: whole numbers beyond 53 bits, doubles and text of every kind")
def test_values_stay_what_they_are(server):
    @dsl.component(base_image="python:3.11")
    def same(whole: int, real: float, text: str, many: list, named: dict) -> dict:
        return {"whole": str(whole), "real": real, "text": text, "many": many, "named": named}

    @dsl.pipeline(name="values")
    def pipeline(whole: int, real: float, text: str, many: list, named: dict):
        same(whole=whole, real=real, text=text, many=many, named=named)

    given = {
        "real": 1e-9,
        "text": 'ü\n"\t\\ {{x}} $HOME',
        "many": [None, [1.5], {"a": True}],
        "named": {"ü": []},
    }
    run = runs.succeed(server, pipeline, whole=9007199254740993, **given)
    assert runs.value(server, run.id, "same", "Output") == {"whole": "9007199254740993", **given}


@pytest.mark.covers("Artifacts: a folder, an empty one and nothing at all")
def test_an_output_may_be_a_folder_or_stay_unwritten(server):
    @dsl.container_component
    def three(folder: Output[Dataset], empty: Output[Dataset], unwritten: Output[Dataset]):
        return shell('mkdir -p "$1/a" "$2"; echo deep > "$1/a/b"', folder.path, empty.path, unwritten.path)

    @dsl.container_component
    def look(folder: dsl.Input[Dataset], empty: dsl.Input[Dataset]):
        return shell('cat "$1/a/b"; ls -A "$2" | wc -l', folder.path, empty.path)

    @dsl.pipeline(name="folders")
    def pipeline():
        made = three()
        look(folder=made.outputs["folder"], empty=made.outputs["empty"])

    run = runs.succeed(server, pipeline)
    assert runs.log(server, run, "look").split() == ["deep", "0"]


@pytest.mark.covers("Artifacts: pipeline_root of a run")
def test_a_pipeline_root_is_where_artifacts_go(server, tmp_path):
    @dsl.pipeline(name="rooted")
    def pipeline():
        read_file(data=make_file(text="x").outputs["data"])

    def start(root) -> str:
        return server.client.create_run_from_pipeline_func(
            pipeline, arguments={}, pipeline_root=str(root), enable_caching=False
        ).run_id

    root = server.data_dir / "artifacts" / "of-one-run"
    run = runs.finish(server, start(root))
    assert run.state == "SUCCEEDED", run.describe()
    assert runs.artifacts(server, run.id)["data"]["uri"].removeprefix("file://").startswith(str(root))
    assert runs.log(server, run, "read-file") == "x"

    with pytest.raises(ApiException) as refused:
        start(tmp_path)
    assert refused.value.status == 400 and "runtime_config.pipeline_root" in refused.value.body
