"""Compile the digits pipeline, submit it, follow it, and say what came of it.

Everything up to the last page goes through the unmodified `kfp` SDK, so it works against any
Kubeflow Pipelines server. The list of artifacts at the end is an addition of Coracle's.

    python run.py --host http://127.0.0.1:4242
    python run.py --host http://127.0.0.1:4242 -p trees=300 -p threshold=0.99
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import kfp
import requests
from kfp import compiler
from pipeline import digits_pipeline

sys.path.insert(0, str(Path(__file__).parent.parent))
from progress import Progress

TERMINAL = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    host = options.host.rstrip("/")
    client = kfp.Client(host=host)

    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / "digits.yaml")
        compiler.Compiler().compile(digits_pipeline, package)
        print("compiled examples/digits/pipeline.py with kfp", kfp.__version__)
        submitted = client.create_run_from_pipeline_package(
            package, arguments=options.parameters, run_name="digits", experiment_name="examples"
        )

    run = follow(client, submitted.run_id)
    url = f"{host}/#/runs/details/{run.run_id}"
    if run.state != "SUCCEEDED":
        report_failure(run)
        print(f"\nlook at it: {url}")
        return 1
    report_success(host, run)
    print(f"\nlook at it: {url}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="http://127.0.0.1:4242", help="where the server is")
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="a pipeline parameter"
    )
    options = parser.parse_args(arguments)
    options.parameters = {}
    for pair in options.parameter:
        name, separator, value = pair.partition("=")
        if not separator:
            parser.error(f"`{pair}` is not NAME=VALUE")
        try:
            options.parameters[name] = json.loads(value)
        except json.JSONDecodeError:
            options.parameters[name] = value
    return options


def follow(client: kfp.Client, run_id: str):
    """Show each task's state until the run has ended. Returns the run as it ended."""
    with Progress() as progress:
        while True:
            run = client.get_run(run_id)
            progress.show(run)
            if run.state in TERMINAL:
                return run
            time.sleep(0.3)


def report_failure(run) -> None:
    print(f"\nthe run ended {run.state}")
    tasks = (run.run_details and run.run_details.task_details) or []
    parents = {task.parent_task_id for task in tasks}
    for task in tasks:
        if task.state == "FAILED" and task.task_id not in parents:
            message = task.error.message if task.error else "no message was recorded"
            print(f"  {task.display_name}: {message}")
            print(f"  read its log: coracle logs {run.run_id} {task.display_name!r}")
    if run.error and run.error.message:
        print(f"  {run.error.message}")


def report_success(host: str, run) -> None:
    artifacts = list_artifacts(host, run.run_id)
    print("\naccuracy on the images put aside")
    for artifact in artifacts:
        metadata = artifact.get("metadata") or {}
        if artifact["name"] == "metrics" and "accuracy" in metadata:
            print(f"  {metadata.get('family', '?'):<22}{metadata['accuracy']:.4f}")
    registered = [artifact for artifact in artifacts if artifact["name"] == "registered"]
    for artifact in registered:
        metadata = artifact["metadata"]
        print(f"registered `{metadata['name']}`: {metadata['family']}, {metadata['accuracy']:.4f}")
    if not registered:
        print("no model was registered: none reached the threshold")

    print("\nartifacts")
    for artifact in artifacts:
        if artifact["name"] != "executor-logs":
            print(f"  {artifact['name']:<12}{artifact.get('uri', '')}")


def list_artifacts(host: str, run_id: str) -> list[dict]:
    answer = requests.get(f"{host}/apis/v2beta1/artifacts", params={"run_id": run_id}, timeout=30)
    answer.raise_for_status()
    return answer.json().get("artifacts", [])


if __name__ == "__main__":
    sys.exit(main())
