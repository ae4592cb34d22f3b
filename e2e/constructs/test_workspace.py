"""Workspaces: one volume for all tasks of a run."""

import pytest
import runs
from components import shell
from kfp import dsl
from kfp.dsl import Dataset, Output

WORKSPACE = dsl.PipelineConfig(
    workspace=dsl.WorkspaceConfig(
        size="1Gi", kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch={"accessModes": ["ReadWriteOnce"]})
    )
)


@dsl.container_component
def put(folder: str, text: str):
    return shell('mkdir -p "$1/deep"; printf %s "$2" > "$1/deep/file"', folder, text)


@dsl.container_component
def get(path: str):
    return shell('cat "$1"', path)


@pytest.mark.covers(
    "Workspaces: shared by the tasks of a run",
    "dsl.WORKSPACE_PATH_PLACEHOLDER",
    "dsl.WorkspaceConfig",
    "dsl.KubernetesWorkspaceConfig",
    "Placeholders: the workspace's path, whole and inside text",
)
def test_tasks_of_a_run_share_a_workspace_and_other_runs_do_not(server):
    @dsl.pipeline(name="workspace", pipeline_config=WORKSPACE)
    def pipeline(text: str):
        made = put(folder=dsl.WORKSPACE_PATH_PLACEHOLDER, text=text)
        get(path=f"{dsl.WORKSPACE_PATH_PLACEHOLDER}/deep/file").after(made)

    package = runs.package(pipeline)
    started = {text: runs.submit_package(server, package, text=text) for text in ("one", "two")}
    for text, run in runs.finish_all(server, started).items():
        assert run.state == "SUCCEEDED", run.describe()
        assert runs.log(server, run, "get") == text
        given = runs.row(server, run.id, "put")["inputs"]["parameters"]["folder"]
        assert given == "/kfp-workspace"


@pytest.mark.covers("Workspaces: in a loop, as a variable and in a nested pipeline")
def test_iterations_share_the_workspace(server):
    @dsl.pipeline(name="part")
    def part(name: str, text: str):
        put(folder=name, text=text)

    @dsl.pipeline(name="workspace-loop", pipeline_config=WORKSPACE)
    def pipeline():
        with dsl.ParallelFor(["/kfp-workspace/a", "/kfp-workspace/b"]) as folder:
            made = part(name=folder, text="x")
        get(path=f"{dsl.WORKSPACE_PATH_PLACEHOLDER}/a/deep/file").after(made)
        get(path=f"{dsl.WORKSPACE_PATH_PLACEHOLDER}/b/deep/file").after(made)

    run = runs.finish(server, runs.submit_package(server, runs.package(pipeline)))
    assert run.state == "SUCCEEDED", run.describe()


@pytest.mark.covers("Workspaces: artifacts beside it")
def test_artifacts_and_the_workspace_do_not_disturb_each_other(server):
    @dsl.component(base_image="python:3.11")
    def both(workspace: str, data: Output[Dataset]) -> str:
        for path in (f"{workspace}/file", data.path):
            with open(path, "w") as file:
                file.write("x")
        return workspace

    @dsl.pipeline(name="workspace-artifacts", pipeline_config=WORKSPACE)
    def pipeline():
        both(workspace=dsl.WORKSPACE_PATH_PLACEHOLDER)

    run = runs.finish(server, runs.submit_package(server, runs.package(pipeline)))
    assert run.state == "SUCCEEDED", run.describe()
    assert runs.artifacts(server, run.id)["data"]["size"] == "1"


@pytest.mark.covers("Workspaces: asked for without one")
def test_a_workspace_that_was_not_asked_for_says_so(server):
    """The SDK does not compile it; a document without its platform part is the same."""

    @dsl.pipeline(name="no-workspace", pipeline_config=WORKSPACE)
    def pipeline():
        get(path=f"{dsl.WORKSPACE_PATH_PLACEHOLDER}/file")

    answer = runs.post_run(server, runs.compiled(pipeline), {})
    if answer.ok:
        run = runs.finish(server, answer.json()["run_id"])
        assert run.state == "FAILED", run.describe()
        assert "workspace" in run.describe()
    else:
        assert answer.status_code == 400 and "workspace" in answer.text
