"""Into running Pods of both runtimes: exec, attach, cp, logs and port-forward, with unmodified clients."""

import json
import os
import re
import select
import socket
import subprocess
import threading
import time
import urllib.request

import pytest
from engine import IMAGE
from kubernetes import client as kubernetes
from kubernetes import stream as kubernetes_stream
from server import environment

MEGABYTES = os.urandom(3 << 20)

SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(("you asked for " + self.path).encode())
    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def wait(kubectl, name, phase="Running"):
    kubectl("wait", "pod", name, f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=60s")


def apply(kubectl, name, command, **container):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": IMAGE, "command": command, **container}],
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))


@pytest.fixture(scope="module")
def pod(server):
    """A Pod that serves HTTP at port 8080 until the tests are over."""
    apply(server.kubectl, "streams", ["python3", "-c", SERVE], env=[{"name": "OWN", "value": "mine"}])
    wait(server.kubectl, "streams")
    yield "streams"
    server.kubectl("delete", "pod", "streams", "--wait=false")


def raw(server, *arguments, stdin=b"", variables=None, timeout=60):
    """kubectl with bytes in and out."""
    return subprocess.run(
        server.kubectl_command(*arguments),
        input=stdin, capture_output=True, timeout=timeout, env={**environment(), **(variables or {})},
    )  # fmt: skip


# kubectl speaks WebSockets first; told otherwise, it speaks SPDY as older ones do.
SPEECHES = {
    "websocket": {},
    "spdy": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"},
}


@pytest.fixture(params=SPEECHES)
def speech(request):
    return SPEECHES[request.param]


def test_a_command_runs_in_the_container(server, pod, speech):
    ended = raw(server, "exec", pod, "--", "sh", "-c", "echo $OWN; echo bad >&2; exit 3", variables=speech)
    assert (ended.stdout, ended.returncode) == (b"mine\n", 3), ended.stderr
    assert b"bad\n" in ended.stderr
    assert b"command terminated with exit code 3" in ended.stderr
    assert raw(server, "exec", pod, "--", "true", variables=speech).returncode == 0


def test_a_command_that_is_not_there_is_an_error(server, pod, speech):
    ended = raw(server, "exec", pod, "--", "no-such-program", variables=speech)
    assert ended.returncode != 0
    assert b"no-such-program" in ended.stderr, ended.stderr


def test_megabytes_go_in_and_out(server, pod, speech):
    ended = raw(server, "exec", "-i", pod, "--", "cat", stdin=MEGABYTES, variables=speech)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == MEGABYTES
    counted = raw(server, "exec", "-i", pod, "--", "wc", "-c", stdin=MEGABYTES, variables=speech)
    assert int(counted.stdout) == len(MEGABYTES)


def test_a_terminal_is_one(server, pod, speech):
    command = server.kubectl_command("exec", "-it", pod, "--", "sh", "-c", "tty; stty size; exit 5")
    quoted = " ".join(f"'{part}'" if " " in part else part for part in command)
    # `script` gives kubectl a terminal of this size.
    ended = subprocess.run(
        ["script", "-qec", f"stty rows 31 cols 97; {quoted}", "/dev/null"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env={**environment(), **speech},
    )  # fmt: skip
    assert "/dev/pts/" in ended.stdout, ended.stdout
    assert ended.returncode == 5, ended.stdout


def test_a_shell_can_be_talked_to(server, pod, speech):
    command = server.kubectl_command("exec", "-i", pod, "--", "sh")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**environment(), **speech}
    ) as shell:
        for number in range(3):
            shell.stdin.write(f"echo line {number}\n".encode())
            shell.stdin.flush()
            assert shell.stdout.readline() == f"line {number}\n".encode()
        shell.stdin.close()
        assert shell.wait(timeout=30) == 0


def test_what_a_client_leaves_when_it_goes_is_ended(server, pod):
    command = server.kubectl_command("exec", pod, "--", "sh", "-c", "echo begun; exec sleep 987654")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as client:
        assert client.stdout.readline() == b"begun\n"
        client.kill()
    # It is gone as soon as the server has seen that the client is.
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = raw(server, "exec", pod, "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        if b"sleep 987654" not in found.stdout:
            return
        time.sleep(0.2)
    raise AssertionError("the command is still there")


def test_files_are_copied_both_ways(server, kubectl, pod, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "large").write_bytes(MEGABYTES)
    (folder / "small").write_text("small")
    kubectl("cp", str(folder), f"{pod}:/tmp/copied")
    listed = kubectl("exec", pod, "--", "ls", "/tmp/copied").stdout.split()
    assert listed == ["large", "small"]
    kubectl("cp", f"{pod}:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back" / "large").read_bytes() == MEGABYTES
    assert (tmp_path / "back" / "small").read_text() == "small"


def test_the_main_process_is_attached_to(server, kubectl):
    apply(kubectl, "attached", ["cat"], stdin=True, stdinOnce=True)
    wait(kubectl, "attached")
    ended = raw(server, "attach", "-i", "attached", stdin=b"one\ntwo\n")
    assert b"one\ntwo\n" in ended.stdout, ended.stderr
    wait(kubectl, "attached", "Succeeded")
    assert kubectl("logs", "attached").stdout == "one\ntwo\n"
    kubectl("delete", "pod", "attached")


def test_kubectl_run_talks_to_what_it_starts(server, kubectl):
    ended = raw(
        server, "run", "run-and-talk", "--rm", "-i", "--restart=Never", f"--image={IMAGE}", "--command", "--",
        "sh", "-c", "read x; echo got $x", stdin=b"word\n",
    )  # fmt: skip
    assert b"got word\n" in ended.stdout, ended.stdout + ended.stderr
    assert b"deleted" in ended.stdout, ended.stdout


def test_logs_of_all_containers_runs_and_times(server, kubectl):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "talks"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "OnFailure",
            "containers": [
                {
                    "name": "one",
                    "image": IMAGE,
                    "command": ["sh", "-c", "echo run $(ls /kept | wc -l); echo x >> /kept/$$; "
                                "[ $(cat /kept/* | wc -l) -gt 1 ] || exit 1; echo last; sleep 1000"],
                    "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
                },
                {"name": "two", "image": IMAGE, "command": ["sh", "-c", "seq 1 5; sleep 1000"]},
            ],
            "volumes": [{"name": "kept", "emptyDir": {}}],
        },
    }  # fmt: skip
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    follow = server.kubectl_command("logs", "-f", "talks", "-c", "two", "--pod-running-timeout=60s")
    wait(kubectl, "talks")
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True, env=environment()) as following:
        assert [following.stdout.readline() for _ in range(5)] == [f"{n}\n" for n in range(1, 6)]
        following.kill()
    # It is ready during its first run, too.
    restarts = 'jsonpath={.status.containerStatuses[?(@.name=="one")].restartCount}=1'
    kubectl("wait", "pod", "talks", f"--for={restarts}", "--timeout=60s")
    kubectl("wait", "pod", "talks", "--for=condition=Ready", "--timeout=60s")
    assert kubectl("logs", "talks", "-c", "two", "--tail=2").stdout == "4\n5\n"
    assert kubectl("logs", "talks", "-c", "two", "--limit-bytes=3").stdout == "1\n2"
    assert kubectl("logs", "talks", "-c", "two", "--since=1h").stdout == "1\n2\n3\n4\n5\n"
    timed = kubectl("logs", "talks", "-c", "two", "--timestamps", "--tail=1").stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z 5\n", timed)
    follow = server.kubectl_command("logs", "-f", "talks", "-c", "one")
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True, env=environment()) as following:
        assert [following.stdout.readline() for _ in range(2)] == ["run 1\n", "last\n"]
        following.kill()
    everything = kubectl("logs", "talks", "--all-containers", "--prefix").stdout
    assert "[pod/talks/two] 5" in everything and "[pod/talks/one] last" in everything
    assert kubectl("logs", "talks", "-c", "one", "-p").stdout == "run 0\n"
    refused = kubectl("logs", "talks", "-c", "three", check=False)
    assert "container three is not valid for pod talks" in refused.stderr
    kubectl("delete", "pod", "talks", "--wait=false")


class Forward:
    """`kubectl port-forward` at work."""

    def __init__(self, server, pod, port, variables):
        self.command = server.kubectl_command("port-forward", f"pod/{pod}", f":{port}")
        self.variables = {**environment(), **variables}

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.variables
        )
        line = self.process.stdout.readline()
        found = re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def ask(port, path, data=None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", data=data, timeout=30) as answer:
        return answer.read()


def test_a_port_is_forwarded_for_several_connections(server, pod, speech):
    with Forward(server, pod, 8080, speech) as forward:
        assert ask(forward.port, "/first") == b"you asked for /first"
        assert ask(forward.port, "/echo", MEGABYTES) == MEGABYTES
        # One that is open and silent keeps no other from being served.
        with socket.create_connection(("127.0.0.1", forward.port)) as silent:
            answers = {}

            def get(number):
                answers[number] = ask(forward.port, f"/{number}")

            threads = [threading.Thread(target=get, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
            assert answers == {number: f"you asked for /{number}".encode() for number in range(8)}
            silent.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
            with silent.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 200")
                lines = iter(answer.readline, b"\r\n")
                length = next(int(line.split()[1]) for line in lines if line.startswith(b"Content-Length"))
                list(lines)
                assert answer.read(length) == b"you asked for /late"


def test_a_port_at_which_nobody_listens_is_said(server, pod, speech):
    with Forward(server, pod, 8099, speech) as forward:
        with pytest.raises(OSError):
            ask(forward.port, "/")
        assert select.select([forward.process.stderr], [], [], 20)[0]
        line = forward.process.stderr.readline()
        assert "error forwarding port 8099 to pod" in line, line


def api(server):
    configuration = kubernetes.Configuration(host=server.url)
    return kubernetes.CoreV1Api(kubernetes.ApiClient(configuration))


def test_the_python_client_runs_commands(server, pod):
    core = api(server)
    said = kubernetes_stream.stream(
        core.connect_get_namespaced_pod_exec, pod, "default", command=["sh", "-c", "echo $OWN"],
        stdin=False, stdout=True, stderr=True, tty=False,
    )  # fmt: skip
    assert said == "mine\n"
    session = kubernetes_stream.stream(
        api(server).connect_get_namespaced_pod_exec, pod, "default",
        command=["sh", "-c", "read x; echo got $x; exit 4"],
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )  # fmt: skip
    session.write_stdin("word\n")
    session.run_forever(timeout=30)
    assert session.read_stdout() == "got word\n"
    assert session.returncode == 4


def test_the_python_client_forwards_ports(server, pod):
    forward = kubernetes_stream.portforward(
        api(server).connect_get_namespaced_pod_portforward, pod, "default", ports="8080"
    )
    connection = forward.socket(8080)
    connection.setblocking(True)
    connection.sendall(b"GET /python HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while b"you asked for /python" not in answer:
        part = connection.recv(4096)
        assert part, answer
        answer += part
    connection.close()
    assert forward.error(8080) is None


def test_what_is_over_is_not_entered(server, kubectl):
    apply(kubectl, "over", ["true"])
    wait(kubectl, "over", "Succeeded")
    refused = kubectl("exec", "over", "--", "true", check=False)
    assert "cannot exec into a container in a completed pod; current phase is Succeeded" in refused.stderr
    kubectl("delete", "pod", "over")
