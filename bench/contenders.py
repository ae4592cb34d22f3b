"""Who is measured by bench/peers.py, and how each gets an environment of its own."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from report import ROOT

SCRIPTS = ROOT / "bench" / "peers"
ENVIRONMENTS = ROOT / ".coracle" / "peers"


@dataclass(frozen=True)
class Peer:
    """One way to run the workloads."""

    name: str
    #: What the table calls it.
    title: str
    #: Its script in bench/peers/ without `on_`; the file with its packages has the same name.
    script: str
    #: What of a run can be looked at later, when it is used as here.
    keeps: str
    mode: str = ""
    has_server: bool = False
    #: The server runs the tasks: the clock goes from submission to end. Else from the start of a
    #: command to its end.
    is_submitted: bool = False

    @property
    def requirements(self) -> Path:
        return SCRIPTS / f"{self.script}.txt"

    @property
    def python(self) -> Path:
        """Its interpreter. Coracle's client is this one: it needs the SDK to compile."""
        if self.script == "coracle":
            return Path(sys.executable)
        return ENVIRONMENTS / self.script / "venv" / "bin" / "python"

    def version(self, coracle: Path) -> str:
        if self.script == "coracle":
            return subprocess.run([coracle, "--version"], capture_output=True, text=True).stdout.split()[-1]
        return self.requirements.read_text().strip().rpartition("==")[2]


EVERYTHING = "runs, values, files, logs, lineage"
PEERS = [
    Peer(
        "coracle", "Coracle, API", "coracle", EVERYTHING, "api",
        has_server=True, is_submitted=True,
    ),
    Peer(
        "coracle-run", "Coracle, `coracle run`", "coracle", EVERYTHING, "cli",
        has_server=True, is_submitted=True,
    ),
    Peer("kfp-local", "kfp.local, as documented", "kfp_local", "files", "documented"),
    Peer("kfp-local-tuned", "kfp.local, without pip", "kfp_local", "files", "tuned"),
    Peer("luigi", "Luigi, 1 worker", "luigi", "files", "1"),
    Peer("luigi-2", "Luigi, 2 workers", "luigi", "files", "2"),
    Peer("prefect", "Prefect, warm server", "prefect", "runs, logs", has_server=True),
    Peer("dagster", "Dagster, `execute_in_process`", "dagster", "nothing", "in-process"),
    Peer("dagster-multiprocess", "Dagster, multiprocess", "dagster", "runs, values, logs", "multiprocess"),
    Peer("metaflow", "Metaflow", "metaflow", "runs, values, logs"),
    Peer(
        "airflow", "Airflow standalone, warm", "airflow", "runs, values, logs",
        has_server=True, is_submitted=True,
    ),
]  # fmt: skip


def install(peer: Peer, uv: str | None) -> None:
    """Make a peer's environment, unless it is there as its requirements say. Raises RuntimeError."""
    if peer.script == "coracle":
        return
    venv = peer.python.parent.parent
    stamp = venv.with_name("installed")
    files = (peer.requirements, SCRIPTS / "digits.txt", SCRIPTS / "overrides.txt")
    wanted = "".join(file.read_text() for file in files)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {peer.script} {peer.version(Path())}", flush=True)
    if uv:
        # kfp.local calls pip, hence the seed.
        make = [uv, "venv", "--quiet", "--seed", "--clear", "--python", sys.executable, venv]
        fill = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", peer.python]
        fill += ["--override", SCRIPTS / "overrides.txt"]
    else:
        make = [sys.executable, "-m", "venv", "--clear", venv]
        fill = [peer.python, "-m", "pip", "install", "--quiet"]
    for command in (make, [*fill, "-r", peer.requirements]):
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode != 0:
            raise RuntimeError(f"not installed: {last_line(ended.stderr or ended.stdout)}")
    stamp.write_text(wanted)


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
