"""A Coracle server under test, and the ways in which users reach it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import kfp
import requests

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("CORACLE_BIN", ROOT / "target" / "debug" / "coracle"))
READY_SECONDS = 30


class Server:
    """`coracle up` as a child process with its own data directory and port."""

    def __init__(self, data_dir: Path, log: Path, port: int | None = None, variables: dict | None = None):
        self.data_dir = data_dir
        self.log = log
        self.port = port or free_port()
        self.variables = variables or {}
        self.process: subprocess.Popen | None = None
        self._client: kfp.Client | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *flags: str, binary: Path = BINARY, user: int | None = None) -> "Server":
        """Start it, as another user of this machine if one is given."""
        command = [
            binary, "up", "--foreground", "--data-dir", self.data_dir, "--port", str(self.port), *flags,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**environment(), **self.variables},
                user=user, group=user, extra_groups=None if user is None else [],
            )  # fmt: skip
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"`coracle up` ended with {self.process.returncode}\n{self.log_tail()}")
            try:
                if requests.get(f"{self.url}/healthz", timeout=5).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server was not ready in {READY_SECONDS} s\n{self.log_tail()}")

    def stop(self) -> int:
        """End it as Ctrl-C does. Returns its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop in 20 s\n{self.log_tail()}") from None

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=20)

    def log_tail(self, lines: int = 60) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    @property
    def client(self) -> kfp.Client:
        """The unmodified SDK's client."""
        if self._client is None:
            self._client = kfp.Client(host=self.url)
        return self._client

    def http(self, method: str, path: str, **options) -> requests.Response:
        return requests.request(method, f"{self.url}{path}", timeout=60, **options)

    def get(self, path: str, **parameters):
        """The JSON at a path of the KFP API."""
        answer = self.http("GET", f"/apis/v2beta1{path}", params=parameters)
        assert answer.ok, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def cli(self, *arguments, check: bool = True, env: dict | None = None, timeout: float = 100):
        """Run a `coracle` command against this server."""
        return run_cli(*arguments, "--data-dir", self.data_dir, check=check, env=env, timeout=timeout)

    def cli_json(self, *arguments):
        return json.loads(self.cli(*arguments, "-o", "json").stdout)

    def kubectl(self, *arguments, check: bool = True, timeout: float = 60, stdin: str | None = None):
        ended = subprocess.run(
            self.kubectl_command(*arguments),
            capture_output=True, text=True, timeout=timeout, input=stdin, env=environment(),
        )  # fmt: skip
        if check and ended.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {ended.returncode}\n{ended.stderr}")
        return ended

    def kubectl_command(self, *arguments) -> list[str]:
        cache = str(self.data_dir.parent / "kubectl-cache")
        return [
            "kubectl",
            "--kubeconfig=/dev/null",
            f"--server={self.url}",
            f"--cache-dir={cache}",
            *arguments,
        ]


def run_cli(*arguments, check: bool = False, env: dict | None = None, timeout: float = 100):
    """Run a `coracle` command to its end, its output as text."""
    ended = subprocess.run(
        [str(part) for part in (BINARY, *arguments)],
        capture_output=True, text=True, timeout=timeout, env={**environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if check and ended.returncode != 0:
        command = " ".join(["coracle", *map(str, arguments)])
        raise AssertionError(f"{command}: exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
    return ended


def environment() -> dict:
    """This process's environment, with `uv` found and nothing that points clients elsewhere."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("KF_PIPELINES", "CORACLE_"))
    }
    beside = ROOT / ".venv" / "bin"
    if shutil.which("uv") is None and (beside / "uv").exists():
        kept["PATH"] = f"{kept.get('PATH', '')}{os.pathsep}{beside}"
    # Tests that want a container engine name their own.
    kept["DOCKER_HOST"] = "unix:///no/such/engine.sock"
    kept["NO_PROXY"] = kept["no_proxy"] = "127.0.0.1,localhost"
    return kept


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
