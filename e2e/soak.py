"""Kills the server, launchers and helpers at random moments while runs go on, and looks at what came of them.

    python e2e/soak.py [--kills 200] [--seed N] [--runs 3]

Every run has to end as it does when nothing is killed; no attempt may do its work twice; every artifact has
its file; no process may be left. A failure prints the seed, which gives the same kills again, at about the
same moments.
"""

import argparse
import collections
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import runs
from kfp import dsl
from server import Server
from witness import Witness

#: Each kill of a launcher or helper costs an attempt, and an attempt may be hit more than once.
RETRIES = 30
TELL = """
name="$(hostname)"
python3 -c "import urllib.request as u; u.urlopen('$0/$name').read()"
"""


@dsl.container_component
def work(witness: str, number: int, out: dsl.OutputPath(int), file: dsl.Output[dsl.Artifact]):
    """Makes its artifact elsewhere and says so, and the launcher brings it to its place."""
    script = (
        TELL
        + """
    mkdir -p "$(dirname "$2")" "$(dirname "$3")"
    sleep 0.1
    echo "$1" > "$2"
    echo kept > /tmp/made
    echo '{"artifacts": {"file": {"artifacts": [{"customPath": "/tmp/made"}]}}}' > "$3"
    """
    )
    said = "{{$.outputs.output_file}}"
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-ec"], args=[script, witness, number, out, said]
    )


@dsl.container_component
def stumble(witness: str, out: dsl.OutputPath(str)):
    """Fails the first time by itself."""
    script = TELL + 'case "$name" in *-1) exit 1;; esac; mkdir -p "$(dirname "$1")"; echo up > "$1"'
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-ec"], args=[script, witness, out])


@dsl.container_component
def gather(witness: str, numbers: list, file: dsl.Input[dsl.Artifact], out: dsl.OutputPath(str)):
    script = TELL + 'mkdir -p "$(dirname "$3")"; echo "$(cat "$2") $1" | tr -d " \\n" > "$3"'
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-ec"], args=[script, witness, numbers, file.path, out]
    )


@dsl.container_component
def last(witness: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-ec"], args=[TELL, witness])


@dsl.container_component
def break_off(witness: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-ec"], args=[TELL + "exit 9", witness])


def steady(task):
    return task.set_retry(num_retries=RETRIES, backoff_duration="0s")


@dsl.pipeline
def busy(witness: str, is_bad: bool):
    """A loop, a fan-in, a condition, a retry, a cache and an exit task; it fails if it is told to."""
    with dsl.ExitHandler(exit_task=steady(last(witness=witness)).set_caching_options(False)):
        kept = steady(work(witness=witness, number=0))
        with dsl.ParallelFor([1, 2, 3], parallelism=2) as number:
            looped = steady(work(witness=witness, number=number)).set_caching_options(False)
        up = steady(stumble(witness=witness)).set_caching_options(False)
        steady(gather(
            witness=witness, numbers=dsl.Collected(looped.outputs["out"]), file=kept.outputs["file"]
        )).set_caching_options(False).after(up)  # fmt: skip
        # An expression of the pipeline, not of Python.
        with dsl.If(is_bad == True):  # noqa: E712
            break_off(witness=witness).set_caching_options(False)


class Soak:
    """One server, and what is done to it."""

    def __init__(self, server: Server, witness: Witness, seed: int):
        self.server, self.witness = server, witness
        self.random = random.Random(seed)
        self.killed = collections.Counter()
        self.expected: dict[str, str] = {}
        self.open: list[str] = []

    def submit(self) -> None:
        is_bad = self.random.random() < 0.25
        with contextlib.redirect_stdout(io.StringIO()):
            run_id = runs.submit_as_compiled(self.server, busy, witness=self.witness.url, is_bad=is_bad)
        self.expected[run_id] = "FAILED" if is_bad else "SUCCEEDED"
        self.open.append(run_id)

    def unfinished(self) -> list[str]:
        self.open = [
            run_id for run_id in self.open if runs.read(self.server, run_id).state not in runs.TERMINAL
        ]
        return self.open

    def kill_something(self) -> None:
        kinds = {"server": 2, "launcher": 1, "helper": 1}
        kind = self.random.choices(list(kinds), kinds.values())[0]
        if kind == "server":
            self.server.kill()
            self.killed[kind] += 1
            self.server.start()
            return
        found = self.processes(kind)
        if found:
            try:
                os.kill(self.random.choice(found), signal.SIGKILL)
                self.killed[kind] += 1
            except ProcessLookupError:
                pass

    def processes(self, kind: str) -> list[int]:
        """Launchers of this server's tasks, or helpers around its containers."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if kind == "launcher" and b"launch" in words[1:2]:
                    server = f"CORACLE_LAUNCH_SERVER={self.server.url}".encode()
                    is_ours = server in (folder / "environ").read_bytes().split(b"\0")
                else:
                    data_dir = str(self.server.data_dir.resolve()).encode()
                    is_ours = words[1:2] == [b"sandbox"] and any(data_dir in word for word in words[2:])
                    is_ours = is_ours and kind == "helper"
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if is_ours:
                found.append(int(folder.name))
        return found

    def run(self, kills: int, at_once: int, tell=lambda text: None) -> None:
        while sum(self.killed.values()) < kills:
            while len(self.unfinished()) < at_once:
                self.submit()
            time.sleep(self.random.uniform(0.02, 0.6))
            before = sum(self.killed.values())
            self.kill_something()
            count = sum(self.killed.values())
            if count > before and count % 20 == 0:
                tell(f"{count} kills ({dict(self.killed)}), {len(self.expected)} runs")
        self.check()

    def check(self) -> None:
        problems = []
        for run_id, expected in self.expected.items():
            run = runs.finish(self.server, run_id, timeout=300)
            if run.state != expected:
                problems.append(f"expected {expected}: {run.describe()}")
            if run.states().get("last") != "SUCCEEDED":
                problems.append(f"the exit task did not run: {run.describe()}")
            if expected == "SUCCEEDED" and runs.value(self.server, run_id, "gather") != "kept[1,2,3]":
                problems.append(f"run {run_id} gathered {runs.value(self.server, run_id, 'gather')!r}")
            for name, artifact in runs.artifacts(self.server, run_id).items():
                path = artifact["uri"].removeprefix("file://")
                if path.startswith("/") and not Path(path).exists():
                    problems.append(f"run {run_id}: artifact {name} has no file at {path}")
        twice = {name: count for name, count in self.witness.counts().items() if count != 1}
        if twice:
            problems.append(f"attempts that did their work more than once: {twice}")
        deadline = time.monotonic() + 30
        while left := self.processes("launcher") + self.processes("helper"):
            if time.monotonic() > deadline:
                problems.append(f"processes that are left: {left}")
                break
            time.sleep(0.1)
        assert not problems, "\n".join(problems)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3, help="how many go on at once")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, Witness() as witness:
        server = Server(Path(folder) / "data", Path(folder) / "server.log")
        soak = Soak(server.start(), witness, options.seed)
        begun = time.monotonic()
        try:
            soak.run(options.kills, options.runs, lambda text: print(text, flush=True))
        except BaseException:
            print(f"seed {options.seed}\n{server.log_tail(200)}", file=sys.stderr)
            raise
        finally:
            server.kill()
        took = time.monotonic() - begun
        print(f"{sum(soak.killed.values())} kills {dict(soak.killed)} in {took:.0f} s:")
        print(f"{len(soak.expected)} runs ended as they should,", end=" ")
        print(f"{len(witness.counts())} attempts did their work once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
