"""Importers: which artifact they give, with which metadata, and where its bytes are."""

import pytest
import runs
from components import write
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model


@dsl.component(base_image="python:3.11")
def look(data: Input[Dataset]) -> dict:
    import os

    with open(data.path) as file:
        return {
            "path": data.path,
            "text": file.read(),
            "metadata": data.metadata,
            "there": os.path.exists(data.path),
        }


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "rows.csv"
    made.write_text("1,2\n")
    return made


@pytest.mark.covers("Importers: a constant, a parameter or a task's output as uri", "dsl.importer")
def test_the_uri_is_a_constant_a_parameter_or_a_tasks_output(server, file):
    uri = str(file)

    @dsl.pipeline(name="import-uris")
    def pipeline(given: str):
        made = write(text=given)
        for name, source in (("constant", uri), ("parameter", given), ("output", made.outputs["out"])):
            imported = dsl.importer(artifact_uri=source, artifact_class=Dataset)
            look(data=imported.output).set_display_name(name)

    run = runs.succeed(server, pipeline, given=uri)
    for name in ("constant", "parameter", "output"):
        assert runs.value(server, run.id, name, "Output")["text"] == "1,2\n"


@pytest.mark.covers("Importers: metadata with parameters in it, also nested")
def test_metadata_holds_values_known_only_at_run_time(server, file):
    @dsl.pipeline(name="import-metadata-deep")
    def pipeline(uri: str, owner: str, version: str = "7"):
        imported = dsl.importer(
            artifact_uri=uri,
            artifact_class=Dataset,
            metadata={
                "owner": owner,
                "version": version,
                "nested": {"made by": write(text="a task").outputs["out"], "list": [owner, 2]},
                owner: "a key",
            },
        )
        look(data=imported.output)

    run = runs.succeed(server, pipeline, uri=str(file), owner="Ada")
    expected = {
        "owner": "Ada",
        "version": "7",
        "nested": {"made by": "a task", "list": ["Ada", 2]},
        "Ada": "a key",
    }
    assert runs.value(server, run.id, "look", "Output")["metadata"] == expected


@pytest.mark.covers("Importers: reimport")
@pytest.mark.parametrize("reimport", [False, True])
def test_the_same_uri_is_one_artifact_unless_imported_anew(server, file, reimport):
    @dsl.pipeline(name="import-again")
    def pipeline(uri: str):
        dsl.importer(artifact_uri=uri, artifact_class=Model, reimport=reimport, metadata={"k": "v"})

    made = [
        runs.artifacts(server, runs.succeed(server, pipeline, uri=str(file)).id)["artifact"]["artifact_id"]
        for _ in range(2)
    ]
    assert (made[0] != made[1]) is reimport


@pytest.mark.covers("Importers: other metadata is another artifact")
def test_other_metadata_make_another_artifact(server, file):
    @dsl.pipeline(name="import-other")
    def pipeline(uri: str, word: str):
        dsl.importer(artifact_uri=uri, artifact_class=Model, reimport=False, metadata={"word": word})

    made = {
        runs.artifacts(server, runs.succeed(server, pipeline, uri=str(file), word=word).id)["artifact"][
            "artifact_id"
        ]
        for word in ("a", "b")
    }
    assert len(made) == 2


WORKSPACE = dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi"))


@pytest.mark.covers("Importers: download_to_workspace", "Workspaces: an importer brings an artifact into it")
def test_an_artifact_is_brought_into_the_workspace(server, file):
    @dsl.pipeline(name="import-workspace", pipeline_config=WORKSPACE)
    def pipeline(uri: str):
        imported = dsl.importer(artifact_uri=uri, artifact_class=Dataset, download_to_workspace=True)
        look(data=imported.output)

    run = runs.finish(server, runs.submit_package(server, runs.package(pipeline), uri=str(file)))
    assert run.state == "SUCCEEDED", run.describe()
    seen = runs.value(server, run.id, "look", "Output")
    assert seen["text"] == "1,2\n"
    assert seen["path"].startswith("/kfp-workspace/.artifacts/"), seen


@pytest.mark.covers("Importers: in loops and nested pipelines")
def test_importers_may_be_in_loops_and_nested_pipelines(server, file, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("3,4\n")

    @dsl.pipeline(name="fetch")
    def fetch(uri: str) -> Dataset:
        return dsl.importer(artifact_uri=uri, artifact_class=Dataset).output

    @dsl.pipeline(name="import-loop")
    def pipeline(uris: list):
        with dsl.ParallelFor(uris) as uri:
            look(data=fetch(uri=uri).output)

    run = runs.succeed(server, pipeline, uris=[str(file), str(other)])
    assert [seen["text"] for seen in runs.values(server, run.id, "look", "Output")] == ["1,2\n", "3,4\n"]


@pytest.mark.covers("Importers: a folder")
def test_a_folder_is_imported_as_it_is(server, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("deep")

    @dsl.component(base_image="python:3.11")
    def walk(data: Input[Artifact]) -> str:
        with open(f"{data.path}/sub/file") as file:
            return file.read()

    @dsl.pipeline(name="import-folder")
    def pipeline(uri: str):
        walk(data=dsl.importer(artifact_uri=uri, artifact_class=Artifact).output)

    run = runs.succeed(server, pipeline, uri=str(folder))
    assert runs.value(server, run.id, "walk", "Output") == "deep"
