"""The example, end to end: through the unmodified SDK, through the command line, and seen by kubectl."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import runs
from server import ROOT, environment

EXAMPLE = ROOT / "examples" / "digits"
TASKS = {
    "load-digits",
    "split-digits",
    "train-logistic-regression",
    "train-random-forest",
    "evaluate logistic regression",
    "evaluate random forest",
    "choose-best",
}

# The first run downloads scikit-learn where no cache has it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def digits_pipeline():
    spec = importlib.util.spec_from_file_location("digits_example", EXAMPLE / "pipeline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.digits_pipeline


@pytest.fixture(scope="module")
def run(server, digits_pipeline):
    return runs.succeed(server, digits_pipeline, timeout=500, trees=50)


def test_every_task_succeeds_and_the_better_model_is_registered(run):
    states = run.states()
    assert {name: states[name] for name in TASKS} == dict.fromkeys(TASKS, "SUCCEEDED")
    assert states["good enough"] == states["register"] == "SUCCEEDED"


def test_metrics_and_confusion_matrices_are_artifacts(server, run):
    listed = server.get("/artifacts", run_id=run.id)["artifacts"]
    scores = [artifact["metadata"] for artifact in listed if artifact["name"] == "metrics"]
    assert {score["family"] for score in scores} == {"logistic regression", "random forest"}
    assert all(score["accuracy"] > 0.9 for score in scores)
    matrices = [
        artifact["metadata"]["confusionMatrix"] for artifact in listed if artifact["name"] == "confusion"
    ]
    assert len(matrices) == 2
    for matrix in matrices:
        assert len(matrix["annotationSpecs"]) == len(matrix["rows"]) == 10
        assert sum(sum(row["row"]) for row in matrix["rows"]) == 450


def test_the_registered_model_is_on_disk_with_its_card(server, run):
    kept = runs.artifacts(server, run.id)
    assert Path(kept["registered"]["uri"]).stat().st_size > 0
    card = Path(kept["card"]["uri"]).read_text()
    assert kept["registered"]["metadata"]["sha256"] in card
    assert "8 × 8" in card


def test_the_tasks_are_pods(run, kubectl):
    listed = kubectl("get", "pods", "-A", "-l", f"pipeline/runid={run.id}", "--no-headers").stdout
    assert len(listed.splitlines()) == 8
    log = kubectl("logs", run.task("choose-best")["pod_name"]).stdout
    assert "wins with 0.9" in log


def test_below_the_threshold_nothing_is_registered(server, digits_pipeline):
    run = runs.succeed(server, digits_pipeline, timeout=500, trees=10, threshold=0.9999)
    states = run.states()
    assert states["good enough"] == "SKIPPED"
    assert states.get("register", "SKIPPED") == "SKIPPED"
    assert "registered" not in runs.artifacts(server, run.id)


def test_the_command_line_runs_it(server):
    ended = server.cli("run", EXAMPLE / "pipeline.py", "-p", "trees=10", "--follow", timeout=500)
    shown = ended.stdout + ended.stderr
    assert "SUCCEEDED" in shown
    assert "train-random-forest" in shown


def test_the_examples_own_script_says_what_came_of_it(server):
    ended = subprocess.run(
        [sys.executable, EXAMPLE / "run.py", "--host", server.url, "-p", "trees=10"],
        capture_output=True, text=True, timeout=500, env=environment(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for words in (
        "random forest",
        "logistic regression",
        "registered `digits`",
        f"{server.url}/#/runs/details/",
    ):
        assert words in ended.stdout


def test_the_examples_own_script_fails_when_the_run_does(server):
    ended = subprocess.run(
        [sys.executable, EXAMPLE / "run.py", "--host", server.url, "-p", "test_size=7.5"],
        capture_output=True, text=True, timeout=500, env=environment(),
    )  # fmt: skip
    assert ended.returncode == 1
    assert "split-digits" in ended.stdout
    assert "Traceback" not in ended.stderr
