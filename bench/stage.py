"""Runs one peer's script: its server, and its workloads with the clock and the memory watched."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from contenders import ENVIRONMENTS, SCRIPTS, Peer, last_line
from memory import Peak, family, memory_mb
from report import ROOT

sys.path.insert(0, str(ROOT / "e2e"))
from server import environment, free_port

READY_SECONDS = 180
PR_SET_CHILD_SUBREAPER = 36


class Failed(Exception):
    """A peer did not do what it was asked to; the message is for the table."""


class TooLong(Failed):
    """It was stopped at the limit."""


@dataclass
class Sample:
    """One run of one workload."""

    #: What the table shows: see `Peer.is_submitted`.
    seconds: float
    #: From the start of the process to the call that runs the workload: imports and definitions.
    start_seconds: float
    rss_mb: float
    pss_mb: float


class Stage:
    """A folder for one peer in one round, and the variables that its script reads."""

    def __init__(self, peer: Peer, folder: Path, coracle: Path):
        self.peer = peer
        self.folder = folder
        self.log = ENVIRONMENTS / f"{peer.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        # A command that starts as if its environment were active, as the peers' own pages say.
        path = f"{peer.python.parent}{os.pathsep}{environment().get('PATH', '')}"
        self.variables = {
            **environment(),
            "PATH": path,
            "BENCH_FOLDER": str(folder),
            "BENCH_MODE": peer.mode,
            "BENCH_PORT": str(free_port()),
            "BENCH_CORACLE": str(coracle),
        }
        folder.mkdir(parents=True)

    def spawn(self, command: list, environment: dict | None = None) -> subprocess.Popen:
        """Start a process whose output is added to the log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**self.variables, **(environment or {})}, start_new_session=True,
            )  # fmt: skip

    def script(self, asked: str) -> list:
        return [self.peer.python, SCRIPTS / f"on_{self.peer.script}.py", asked]

    def run(self, workload: str, limit: float) -> Sample:
        spawned = time.time()
        skipped = self.log.stat().st_size
        process = self.spawn(self.script(workload))
        ignored = {os.getpid(), process.pid} if self.peer.is_submitted else {os.getpid()}
        with Peak(lambda: [pid for pid in family(os.getpid()) if pid not in ignored]) as peak:
            try:
                code = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                kill(process)
                raise TooLong(f"stopped after {limit:.0f} s; `--limit` and `--all` give it longer") from None
        ended = time.time()
        said = self.log.read_bytes()[skipped:].decode(errors="replace")
        if code != 0:
            raise Failed(last_line(said))
        # What tools print may leave the cursor anywhere in the line.
        lines = [line.strip() for line in said.splitlines() if line.strip().startswith('{"began"')]
        if not lines:
            raise Failed("it ended well, but did not say when")
        told = json.loads(lines[-1])
        return Sample(
            seconds=told["ended"] - told["began"] if self.peer.is_submitted else ended - spawned,
            start_seconds=told["began"] - spawned,
            rss_mb=peak.rss,
            pss_mb=peak.pss,
        )

    @contextmanager
    def server(self):
        """The peer's server while the block runs. Gives the seconds until it was ready."""
        asked = subprocess.run(
            self.script("server"), cwd=self.folder, env=self.variables, capture_output=True, text=True
        )
        if asked.returncode != 0:
            raise Failed(last_line(asked.stderr))
        told = json.loads(asked.stdout.splitlines()[-1])
        url = f"http://127.0.0.1:{self.variables['BENCH_PORT']}{told['health']}"
        started = time.perf_counter()
        process = self.spawn(told["command"], told["environment"])
        try:
            while not answers(url):
                if process.poll() is not None:
                    raise Failed(f"its server ended: {last_line(self.log.read_text(errors='replace'))}")
                if time.perf_counter() - started > READY_SECONDS:
                    raise Failed(f"its server was not ready in {READY_SECONDS} s")
                time.sleep(0.005)
            yield time.perf_counter() - started
        finally:
            end(process)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def memory_of_children() -> tuple[float, float]:
    return memory_mb([pid for pid in family(os.getpid()) if pid != os.getpid()])


def adopt() -> None:
    """Processes whose parent has gone become children of this one, so that none is overlooked."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill(process: subprocess.Popen) -> None:
    """Kill a process and what is in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end(process: subprocess.Popen) -> None:
    """Ask a process to end, as Ctrl-C does, and kill it after a while."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        process.send_signal(signal.SIGINT)
        process.wait(timeout=15)
    kill(process)


def sweep() -> None:
    """Kill what a peer left behind: descendants of this process, and no others."""
    for pid in family(os.getpid())[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass
