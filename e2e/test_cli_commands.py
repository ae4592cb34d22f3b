"""The `coracle` commands around runs that were: retry, lineage, schedules, the cache, debugging, clean-up."""

import json
import time
import uuid

import pytest
import runs
from components import make_file, read_file, run, say
from kfp import dsl


@dsl.pipeline(name="cli-made")
def made():
    read_file(data=make_file(text="the bytes").outputs["data"])


@dsl.pipeline(name="cli-script")
def scripted(script: str):
    run(script=script)


def test_a_run_is_retried_and_followed(server, witness):
    ended = runs.fail(server, scripted, script=f'test "$({witness.shell("cli")})" -ge 2')
    shown = server.cli("retry", ended.id, "--follow")
    assert "SUCCEEDED" in shown.stdout + shown.stderr
    assert runs.read(server, ended.id).state == "SUCCEEDED"


def test_the_lineage_of_an_artifact_is_shown(server):
    ended = runs.succeed(server, made)
    text = server.cli("lineage", f"{ended.id}/make-file/data").stdout
    assert "make-file" in text and "read-file" in text
    assert ended.id in json.dumps(server.cli_json("lineage", f"{ended.id}/make-file/data"))


def test_a_schedule_is_made_listed_switched_and_deleted(server, tmp_path):
    name = f"cli-{uuid.uuid4().hex[:8]}"
    package = tmp_path / "scripted.yaml"
    package.write_text(runs.package(scripted))
    server.cli("schedule", "create", package, "--every", "1s", "--name", name, "-p", "script=true")
    deadline = time.monotonic() + 30
    while name not in server.cli("get", "runs").stdout:
        assert time.monotonic() < deadline, "no run in 30 s"
    assert name in server.cli("schedule", "list").stdout
    server.cli("schedule", "disable", name)
    assert name in server.cli("schedule", "describe", name).stdout
    server.cli("schedule", "delete", name)
    assert name not in server.cli("schedule", "list").stdout


def test_a_schedule_that_cannot_be_is_refused(server, tmp_path):
    package = tmp_path / "scripted.yaml"
    package.write_text(runs.package(scripted))
    ended = server.cli("schedule", "create", package, "--cron", "whenever", "-p", "script=true", check=False)
    assert ended.returncode != 0
    assert "whenever" in ended.stderr and "panicked" not in ended.stderr


def test_a_failed_tasks_command_is_printed_with_its_inputs(server):
    ended = runs.fail(server, scripted, script="exit 3")
    shown = server.cli("debug", ended.id, "run", "--print").stdout
    assert "exit 3" in shown


def test_a_dry_run_of_the_clean_up_deletes_nothing(server):
    ended = runs.succeed(server, made)
    shown = server.cli("gc", "--dry-run", "--keep-last", "0")
    assert "panicked" not in shown.stderr
    assert runs.texts([runs.artifacts(server, ended.id)["data"]]) == ["the bytes"]


def test_runs_are_put_away_and_deleted(server):
    ended = runs.succeed(server, made)
    server.cli("archive", "run", ended.id)
    assert runs.read(server, ended.id).body["storage_state"] == "ARCHIVED"
    server.cli("unarchive", "run", ended.id)
    assert runs.read(server, ended.id).body["storage_state"] == "AVAILABLE"
    server.cli("delete", "run", ended.id)
    assert server.http("GET", f"/apis/v2beta1/runs/{ended.id}").status_code == 404


@pytest.mark.covers("Values: the exception's last line and the log's tail in a failure")
def test_a_description_says_why_a_task_failed(server):
    @dsl.component(base_image="python:3.11")
    def broken():
        raise ValueError("the data are empty")

    @dsl.pipeline(name="cli-raises")
    def pipeline():
        broken()
        say(text="beside")

    ended = runs.fail(server, pipeline)
    assert "ValueError: the data are empty" in server.cli("describe", "run", ended.id).stdout
