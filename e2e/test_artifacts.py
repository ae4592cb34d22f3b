"""Artifacts: every type passed between components, with its metadata, and listed afterwards."""

from pathlib import Path

import runs
from kfp import dsl
from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    Markdown,
    Metrics,
    Model,
    Output,
    SlicedClassificationMetrics,
)


@dsl.component(base_image="python:3.11")
def make(
    thing: Output[Artifact],
    dataset: Output[Dataset],
    model: Output[Model],
    page: Output[HTML],
    notes: Output[Markdown],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    curve: Output[ClassificationMetrics],
    sliced: Output[SlicedClassificationMetrics],
):
    for artifact in (thing, dataset, model, page, notes):
        with open(artifact.path, "w") as file:
            file.write(artifact.name)
    model.metadata["framework"] = "none"
    model.metadata["layers"] = 3
    metrics.log_metric("loss", 0.25)
    confusion.log_confusion_matrix(["cat", "dog"], [[5, 1], [2, 7]])
    curve.log_roc_curve([0.0, 0.5, 1.0], [0.0, 0.75, 1.0], [1.0, 0.5, 0.0])
    # The SDK's own methods for slices need an attribute that it never sets.
    sliced.metadata["evaluationSlices"] = [{"slice": "all", "sliceClassificationMetrics": {}}]


@dsl.component(base_image="python:3.11")
def read(
    thing: Input[Artifact],
    dataset: Input[Dataset],
    model: Input[Model],
    page: Input[HTML],
    notes: Input[Markdown],
    metrics: Input[Metrics],
    confusion: Input[ClassificationMetrics],
):
    for artifact in (thing, dataset, model, page, notes):
        with open(artifact.path) as file:
            file.read()
    assert model.metadata == {"framework": "none", "layers": 3}, model.metadata
    assert metrics.metadata["loss"] == 0.25, metrics.metadata
    assert confusion.metadata["confusionMatrix"]["rows"][1]["row"] == [2, 7], confusion.metadata


@dsl.pipeline(name="every-artifact")
def every_artifact():
    made = make().outputs
    read(
        **{
            name: made[name]
            for name in ("thing", "dataset", "model", "page", "notes", "metrics", "confusion")
        }
    )


def test_each_type_passes_with_its_metadata_and_is_listed(server):
    run = runs.succeed(server, every_artifact)
    made = runs.artifacts(server, run.id)

    assert Path(made["dataset"]["uri"]).read_text() == "dataset"
    assert made["model"]["metadata"] == {"framework": "none", "layers": 3}
    assert made["metrics"]["metadata"]["loss"] == 0.25
    assert made["confusion"]["metadata"]["confusionMatrix"]["rows"][0]["row"] == [5, 1]
    assert len(made["curve"]["metadata"]["confidenceMetrics"]) == 3
    kinds = {name: artifact["type"].lower().removeprefix("system.") for name, artifact in made.items()}
    assert kinds["model"] == "model"
    assert kinds["page"] == "html"
    assert kinds["confusion"].startswith("classificationmetric")


def test_the_uri_names_the_pipeline_the_run_and_the_task(server):
    run = runs.succeed(server, every_artifact)
    uri = runs.artifacts(server, run.id)["model"]["uri"]
    assert f"/every-artifact/{run.id}/make/" in uri
    assert uri.endswith("/model")


def test_a_folder_is_an_artifact_too(server):
    @dsl.container_component
    def write(out: Output[Artifact]):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE,
            command=["sh", "-c"],
            args=[f"mkdir -p {out.path}/sub && echo a > {out.path}/one && echo b > {out.path}/sub/two"],
        )

    @dsl.container_component
    def gather(folder: Input[Artifact]):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE,
            command=["sh", "-c"],
            args=[f"cat {folder.path}/one {folder.path}/sub/two"],
        )

    @dsl.pipeline(name="folder")
    def pipeline():
        gather(folder=write().outputs["out"])

    run = runs.succeed(server, pipeline)
    assert runs.log(server, run, "gather").split() == ["a", "b"]


def test_a_container_component_is_given_uri_path_and_metadata(server):
    @dsl.component(base_image="python:3.11")
    def write(out: Output[Dataset]):
        with open(out.path, "w") as file:
            file.write("body")
        out.metadata["rows"] = 12

    @dsl.container_component
    def look(data: Input[Dataset]):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE,
            command=["sh", "-c", 'echo "uri=$1 rows=$2 body=$(cat "$0")"'],
            args=[data.path, data.uri, data.metadata["rows"]],
        )

    @dsl.pipeline(name="placeholders")
    def pipeline():
        look(data=write().outputs["out"])

    run = runs.succeed(server, pipeline)
    text = runs.log(server, run, "look")
    assert f"uri={runs.artifacts(server, run.id)['out']['uri']} " in text
    assert "rows=12" in text
    assert "body=body" in text


def test_an_optional_artifact_without_a_value_stays_away(server):
    @dsl.component(base_image="python:3.11")
    def expect_none(data: Input[Dataset] = None):
        assert data is None, data

    @dsl.pipeline(name="optional-artifact")
    def pipeline():
        expect_none()

    runs.succeed(server, pipeline)


def test_artifacts_of_a_failed_task_are_kept(server):
    @dsl.component(base_image="python:3.11")
    def write_and_fail(out: Output[Dataset]):
        with open(out.path, "w") as file:
            file.write("half")
        raise SystemExit(3)

    @dsl.pipeline(name="half-done")
    def pipeline():
        write_and_fail()

    run = runs.fail(server, pipeline)
    assert Path(runs.artifacts(server, run.id)["out"]["uri"]).read_text() == "half"


def test_the_log_of_each_task_is_an_artifact(server):
    @dsl.container_component
    def talk():
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo", "a line to keep"])

    @dsl.pipeline(name="talk")
    def pipeline():
        talk()

    run = runs.succeed(server, pipeline)
    kept = runs.artifacts(server, run.id)["executor-logs"]
    assert Path(kept["uri"]).read_text() == "a line to keep\n"
