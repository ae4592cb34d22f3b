"""Python components: what they return, where they write, and what is embedded in them."""

# ruff: noqa: UP006, UP035, UP045 (the SDK reads types from `typing`)

import json
from pathlib import Path
from typing import List, NamedTuple, Optional

import pytest
import runs
from components import shell, write
from kfp import dsl
from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    InputPath,
    Markdown,
    Metrics,
    Model,
    Output,
    OutputPath,
    SlicedClassificationMetrics,
)


@pytest.mark.covers("Components: returned artifacts (pythonic artifacts)", "dsl.get_uri")
def test_artifacts_may_be_returned(server):
    @dsl.component(base_image="python:3.11")
    def one() -> Dataset:
        made = Dataset(uri=dsl.get_uri(), metadata={"rows": 2})
        with open(made.path, "w") as file:
            file.write("returned")
        return made

    @dsl.component(base_image="python:3.11")
    def two(data: Dataset) -> NamedTuple("Both", [("first", Dataset), ("second", Artifact), ("size", int)]):
        from collections import namedtuple

        first = Dataset(uri=dsl.get_uri(suffix="first"), metadata=data.metadata)
        second = Artifact(uri=dsl.get_uri(suffix="second"))
        for made in (first, second):
            with open(made.path, "w") as file, open(data.path) as source:
                file.write(source.read())
        both = namedtuple("Both", ["first", "second", "size"])
        return both(first, second, 8)

    @dsl.pipeline(name="pythonic")
    def pipeline():
        two(data=one().output)

    run = runs.succeed(server, pipeline)
    made = runs.artifacts(server, run.id)
    assert made["Output"]["metadata"] == {"rows": 2}
    assert Path(made["first"]["uri"]).read_text() == Path(made["second"]["uri"]).read_text() == "returned"
    assert made["first"]["metadata"] == {"rows": 2}
    assert runs.value(server, run.id, "two", "size") == 8


@pytest.mark.covers("Components: paths of one's own (Artifact.set_path)")
def test_an_artifact_may_be_written_elsewhere(server):
    @dsl.component(base_image="python:3.11")
    def elsewhere(data: Output[Dataset]):
        import os
        import tempfile

        data.set_path(os.path.join(tempfile.mkdtemp(), "mine.csv"))
        with open(data.path, "w") as file:
            file.write("by hand")

    @dsl.component(base_image="python:3.11")
    def look(data: Input[Dataset]) -> str:
        with open(data.path) as file:
            return file.read()

    @dsl.pipeline(name="custom-path")
    def pipeline():
        look(data=elsewhere().outputs["data"])

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "look", "Output") == "by hand"


@pytest.mark.covers(
    "Components: files as parameters and artifacts (InputPath, OutputPath)", "dsl.InputPath", "dsl.OutputPath"
)
def test_paths_are_inputs_and_outputs(server):
    @dsl.component(base_image="python:3.11")
    def write_both(text: OutputPath(str), data: OutputPath("Dataset")):
        for path in (text, data):
            with open(path, "w") as file:
                file.write("by path")

    @dsl.component(base_image="python:3.11")
    def read_both(text: str, data: InputPath("Dataset")) -> str:
        with open(data) as file:
            return f"{text}, {file.read()}"

    @dsl.pipeline(name="paths")
    def pipeline():
        made = write_both()
        read_both(text=made.outputs["text"], data=made.outputs["data"])

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "read-both", "Output") == "by path, by path"


@pytest.mark.covers(
    "Components: metrics of every kind",
    "dsl.Metrics",
    "dsl.ClassificationMetrics",
    "dsl.SlicedClassificationMetrics",
    "dsl.HTML",
    "dsl.Markdown",
)
def test_metrics_and_pages_are_artifacts(server):
    @dsl.component(base_image="python:3.11")
    def judge(
        scores: Output[Metrics],
        matrix: Output[ClassificationMetrics],
        sliced: Output[SlicedClassificationMetrics],
        page: Output[HTML],
        notes: Output[Markdown],
    ):
        scores.log_metric("loss", 0.25)
        matrix.log_confusion_matrix(["cat", "dog"], [[5, 1], [2, 7]])
        sliced.metadata["evaluationSlices"] = [{"slice": "all", "sliceClassificationMetrics": {}}]
        for made in (page, notes):
            with open(made.path, "w") as file:
                file.write("<p>#")

    @dsl.pipeline(name="metrics")
    def pipeline():
        judge()

    run = runs.succeed(server, pipeline)
    made = runs.artifacts(server, run.id)
    assert made["scores"]["metadata"]["loss"] == 0.25
    assert made["matrix"]["metadata"]["confusionMatrix"]["rows"][1]["row"] == [2, 7]
    assert made["sliced"]["metadata"]["evaluationSlices"][0]["slice"] == "all"
    assert Path(made["page"]["uri"]).read_text() == "<p>#"


@pytest.mark.covers("Components: optional inputs, left out, null or with a default")
def test_optional_inputs_are_absent_null_or_their_default(server):
    @dsl.component(base_image="python:3.11")
    def show(
        data: Input[Dataset] = None,
        text: Optional[str] = None,
        number: int = 3,
        many: Optional[List[str]] = None,
    ) -> str:
        return repr((data, text, number, many))

    @dsl.pipeline(name="inner")
    def inner(text: Optional[str] = None, number: int = 4):
        show(text=text, number=number).set_display_name("inside")

    @dsl.pipeline(name="optional-inputs")
    def pipeline(text: Optional[str] = None, number: int = 5):
        show().set_display_name("nothing")
        show(text=text, number=number).set_display_name("passed on")
        inner(text=text)

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "nothing", "Output") == "(None, None, 3, None)"
    assert runs.value(server, run.id, "passed on", "Output") == "(None, None, 5, None)"
    assert runs.value(server, run.id, "inside", "Output") == "(None, None, 4, None)"


@dsl.container_component
def pick(mode: str, out: dsl.OutputPath(str)):
    return shell('printf %s "$1" > "$2"', mode, out)


def with_literals(document: dict) -> dict:
    """This SDK declares no literals yet; newer ones write them like this."""
    for component in (document["root"], document["components"]["comp-pick"]):
        for name, declared in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if name == "mode":
                declared["literals"] = ["fast", "slow"]
    return document


@pytest.mark.covers("Components: literals")
def test_only_the_declared_literals_are_taken(server):
    @dsl.pipeline(name="literals")
    def pipeline(mode: str = "slow"):
        pick(mode=mode)

    document = with_literals(runs.compiled(pipeline))
    run = runs.finish(server, runs.submit_document(server, document, mode="fast"))
    assert runs.value(server, run.id, "pick") == "fast"
    answer = runs.post_run(server, document, {"mode": "sideways"})
    assert answer.status_code == 400 and "mode" in answer.text, answer.text


@pytest.mark.covers("Components: a literal that a task does not keep to")
def test_a_value_outside_the_literals_of_a_component_fails_its_task(server):
    @dsl.pipeline(name="literal-at-run-time")
    def pipeline():
        pick(mode=write(text="sideways").outputs["out"])

    run = runs.finish(server, runs.submit_document(server, with_literals(runs.compiled(pipeline))))
    assert run.state == "FAILED"
    assert "sideways" in run.failure("pick")


@pytest.mark.covers("Components: a file or folder embedded in a component")
def test_a_folder_is_embedded_in_a_component(server, tmp_path):
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "words.txt").write_text("from the asset")
    (folder / "helper.py").write_text("def shout(text):\n    return text.upper()\n")
    single = tmp_path / "one.txt"
    single.write_text("a single file")

    @dsl.component(base_image="python:3.11", embedded_artifact_path=str(folder))
    def use_folder(assets: dsl.EmbeddedInput[Dataset]) -> str:
        from helper import shout

        with open(f"{assets.path}/words.txt") as file:
            return shout(file.read())

    @dsl.component(base_image="python:3.11", embedded_artifact_path=str(single))
    def use_file(asset: dsl.EmbeddedInput[Artifact]) -> str:
        with open(asset.path) as file:
            return file.read()

    @dsl.pipeline(name="embedded")
    def pipeline():
        use_folder()
        use_file()

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "use-folder", "Output") == "FROM THE ASSET"
    assert runs.value(server, run.id, "use-file", "Output") == "a single file"


@pytest.mark.covers("Components: functions beside the component's own")
def test_a_component_may_have_further_functions(server):
    def double(number: int) -> int:
        return 2 * number

    @dsl.component(base_image="python:3.11", additional_funcs=[double])
    def use(number: int) -> int:
        return double(number)

    @dsl.pipeline(name="more-functions")
    def pipeline():
        use(number=4)

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "use", "Output") == 8


NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": ["word = 'none'"],
            "outputs": [],
            "execution_count": None,
            "id": "a",
        },
        {
            "cell_type": "code",
            "metadata": {},
            "source": ["open(target, 'w').write(word.upper())"],
            "outputs": [],
            "execution_count": None,
            "id": "b",
        },
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.mark.covers("Components: notebooks", "dsl.notebook_component", "dsl.run_notebook")
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_notebook_is_run_with_parameters(server, tmp_path):
    """Its kernel's packages come from the package index."""
    notebook = tmp_path / "word.ipynb"
    notebook.write_text(json.dumps(NOTEBOOK))

    @dsl.notebook_component(base_image="python:3.11", notebook_path=str(notebook))
    def shout(word: str, data: Output[Dataset]):
        dsl.run_notebook(word=word, target=data.path)

    @dsl.pipeline(name="notebook")
    def pipeline(word: str = "quiet"):
        shout(word=word)

    run = runs.finish(server, runs.submit(server, pipeline), timeout=380)
    if "EnvironmentNotReady" in run.describe():
        pytest.skip("nbclient AND ipykernel CANNOT BE INSTALLED HERE: notebook components are not tested")
    assert run.state == "SUCCEEDED", run.describe()
    assert Path(runs.artifacts(server, run.id)["data"]["uri"]).read_text() == "QUIET"


@pytest.mark.covers("Components: types of artifacts of one's own")
def test_an_artifact_type_of_ones_own_is_kept(server):
    @dsl.pipeline(name="own-type")
    def pipeline():
        make_model()

    document = runs.compiled(pipeline)
    component = document["components"]["comp-make-model"]
    component["outputDefinitions"]["artifacts"]["model"]["artifactType"] = {
        "schemaTitle": "acme.Model",
        "schemaVersion": "0.0.1",
    }
    run = runs.finish(server, runs.submit_document(server, document))
    assert run.state == "SUCCEEDED", run.describe()
    assert runs.artifacts(server, run.id)["model"]["type"] == "acme.Model"


@dsl.container_component
def make_model(model: Output[Model]):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["touch"], args=[model.path])


@pytest.mark.covers("Components: a container without a shell", "dsl.ContainerSpec")
def test_a_container_component_runs_a_program_of_its_own(server):
    @dsl.container_component
    def add(left: int, right: int, total: dsl.OutputPath(int)):
        return dsl.ContainerSpec(
            image="python:3.11",
            command=[
                "python3",
                "-c",
                "import sys; open(sys.argv[3], 'w').write(str(int(sys.argv[1]) + int(sys.argv[2])))",
            ],
            args=[left, right, total],
        )

    @dsl.pipeline(name="container")
    def pipeline():
        add(left=2, right=3)

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "add", "total") == 5


@pytest.mark.covers("Components: a display name", "PipelineTask.set_display_name", "dsl.PipelineTask")
def test_a_task_shows_under_its_display_name(server):
    @dsl.pipeline(name="named", display_name="Named pipeline", description="with words")
    def pipeline():
        write(text="x").set_display_name("Write a word")

    run = runs.succeed(server, pipeline)
    assert run.states()["Write a word"] == "SUCCEEDED"
