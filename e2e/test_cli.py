"""The `coracle` command as a person and as a script use it."""

import json
import stat
import subprocess

import pytest
import runs
from kfp import dsl
from server import BINARY, environment, run_cli

PIPELINE = """
from kfp import dsl


@dsl.container_component
def say(text: str):
    script = 'echo "$0"; echo to stderr >&2'
    return dsl.ContainerSpec(image="alpine:3.20", command=["sh", "-c", script], args=[text])


@dsl.pipeline(name="from-the-command-line")
def spoken(text: str = "hello", times: int = 1):
    say(text=text)
"""


@dsl.container_component
def wait(command: str):
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-c", 'echo first; eval "$0"; echo last'], args=[command]
    )


@dsl.pipeline(name="cli-wait")
def waiting(command: str):
    wait(command=command)


@dsl.container_component
def missing():
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["no-such-program"])


@dsl.pipeline(name="cli-fail")
def failing():
    missing()


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "spoken.py"
    file.write_text(PIPELINE)
    return file


def test_a_python_file_is_compiled_run_and_followed(server, script):
    ended = server.cli("run", script, "-p", "text=from python", "--follow")
    shown = ended.stdout + ended.stderr
    assert "SUCCEEDED" in shown
    assert "say" in shown


def test_a_compiled_file_runs_too(server, script, tmp_path):
    package = tmp_path / "spoken.yaml"
    package.write_text(runs.package(waiting))
    shown = server.cli_json("run", package, "-p", "command=true", "--follow")
    assert runs.read(server, shown["run_id"]).state == "SUCCEEDED"


def test_without_follow_the_run_is_only_started(server, script, gate, tmp_path):
    package = tmp_path / "waiting.yaml"
    package.write_text(runs.package(waiting))
    shown = server.cli_json("run", package, "-p", f"command={gate.shell}")
    gate.wait_reached()
    assert runs.read(server, shown["run_id"]).state == "RUNNING"
    gate.open()
    assert runs.finish(server, shown["run_id"]).state == "SUCCEEDED"


def test_a_failed_run_ends_the_command_with_its_reason(server, tmp_path):
    package = tmp_path / "failing.yaml"
    package.write_text(runs.package(failing))
    ended = server.cli("run", package, "--follow", check=False)
    assert ended.returncode == 1
    assert "CommandNotFound" in ended.stdout + ended.stderr
    assert "hint:" in ended.stdout + ended.stderr


def test_a_parameter_that_does_not_fit_is_refused(server, script):
    ended = server.cli("run", script, "-p", "times=often", check=False)
    assert ended.returncode != 0
    assert "times" in ended.stderr
    ended = server.cli("run", script, "-p", "colour=red", check=False)
    assert ended.returncode != 0
    assert "colour" in ended.stderr


def test_a_file_that_does_not_compile_shows_pythons_own_words(server, tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("import no_such_module\n")
    ended = server.cli("run", file, check=False)
    assert ended.returncode != 0
    assert "no_such_module" in ended.stderr


def test_a_file_that_is_not_there(server, tmp_path):
    ended = server.cli("run", tmp_path / "absent.py", check=False)
    assert ended.returncode != 0
    assert "absent.py" in ended.stderr
    assert "panicked" not in ended.stderr


def test_runs_are_listed_and_described(server, script):
    run_id = server.cli_json("run", script, "--follow")["run_id"]
    assert run_id in server.cli("get", "runs").stdout
    described = server.cli("describe", "run", run_id).stdout
    for word in (run_id, "SUCCEEDED", "say", "text"):
        assert word in described, described


def test_a_failed_run_is_described_with_reason_and_hint(server):
    run = runs.fail(server, failing)
    described = server.cli("describe", "run", run.id).stdout
    assert "CommandNotFound" in described and "no-such-program" in described
    assert "hint:" in described


def test_everything_is_there_as_json(server, script):
    run_id = server.cli_json("run", script, "--follow")["run_id"]
    assert run_id in json.dumps(server.cli_json("get", "runs"))
    assert run_id in json.dumps(server.cli_json("describe", "run", run_id))
    assert server.cli_json("get", "pods")
    json.dumps(server.cli_json("doctor"))


def test_pods_are_listed(server, script):
    run_id = server.cli_json("run", script, "--no-cache", "--follow")["run_id"]
    pod = runs.read(server, run_id).task("say")["pod_name"]
    assert pod in server.cli("get", "pods").stdout


def test_the_log_of_a_run_and_of_one_task(server, script):
    run_id = server.cli_json("run", script, "-p", "text=listen", "--follow")["run_id"]
    assert "listen" in server.cli("logs", run_id).stdout
    only = server.cli("logs", run_id, "say").stdout
    assert "listen\n" in only and "to stderr\n" in only


def test_the_log_is_followed(server, gate):
    run_id = runs.submit(server, waiting, command=gate.shell)
    gate.wait_reached()
    command = [str(BINARY), "logs", run_id, "wait", "-f", "--data-dir", str(server.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as following:
        assert "first" in following.stdout.readline()
        gate.open()
        assert "last" in following.stdout.readline()
        assert following.wait(timeout=30) == 0


def test_a_run_that_does_not_exist_is_said_plainly(server):
    for command in (("describe", "run", "no-such-run"), ("logs", "no-such-run")):
        ended = server.cli(*command, check=False)
        assert ended.returncode != 0
        assert "no-such-run" in ended.stderr
        assert "panicked" not in ended.stderr


def test_no_colour_where_nobody_looks_or_nobody_wants_it(server, script):
    for env in ({}, {"NO_COLOR": "1"}, {"NO_COLOR": "1", "TERM": "xterm-256color"}):
        ended = server.cli("run", script, "--follow", env=env)
        assert "\x1b[" not in ended.stdout + ended.stderr


def test_without_a_server_the_hint_says_how_to_start_one(tmp_path):
    ended = run_cli("get", "runs", "--data-dir", tmp_path / "nothing")
    assert ended.returncode != 0
    assert "coracle up" in ended.stderr
    assert "hint:" in ended.stderr
    assert not (tmp_path / "nothing").exists()


def test_help_names_the_commands():
    text = run_cli("--help", check=True).stdout
    for command in ("up", "down", "run", "get", "describe", "logs", "doctor"):
        assert f"  {command}" in text


def test_doctor_says_what_it_found(server):
    text = server.cli("doctor", check=False).stdout
    for word in ("python", "uv", "isolation"):
        assert word in text.lower(), text


def test_up_in_the_background_down_and_down_again(tmp_path, new_server):
    server = new_server()
    started = server.cli("up", "-d", "--port", server.port)
    try:
        assert server.url in started.stdout + started.stderr
        assert server.http("GET", "/healthz").ok
        running = json.loads((server.data_dir / "server.json").read_text())
        assert running["url"] == server.url
        assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    finally:
        server.cli("down")
    assert server.cli("get", "runs", check=False).returncode != 0
    again = server.cli("down", check=False)
    assert "panicked" not in again.stderr
