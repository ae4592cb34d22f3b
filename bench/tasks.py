"""What a task costs beside its own work: on a warm server, and on `kfp.local` in the same minutes."""

import os
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import runs
from kfp import dsl
from line import Line
from server import ROOT, Server

PEERS = {
    "kfp.local subprocess, without package checks": "bare",
    "kfp.local subprocess, as documented": "documented",
}


@dsl.container_component
def nothing():
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c", "true"])


def container_chain(length: int):
    @dsl.pipeline(name="bench-chain")
    def pipeline():
        last = nothing()
        for _ in range(length - 1):
            last = nothing().after(last)

    return pipeline


def container_fan(width: int):
    @dsl.pipeline(name="bench-fan")
    def pipeline():
        for _ in range(width):
            nothing()

    return pipeline


def measure(folder: Path, is_quick: bool):
    folder.mkdir()
    chain, fan, rounds = (10, 20, 2) if is_quick else (30, 100, 5)
    server = Server(folder / "data", folder / "server.log").start()
    try:
        yield from containers(server, chain, fan, rounds)
        yield from python(server, folder, length=4 if is_quick else 10, rounds=rounds if is_quick else 3)
    finally:
        server.stop()


def containers(server: Server, chain: int, fan: int, rounds: int):
    floor = [shell_ms(chain) for _ in range(rounds)]
    yield Line("`sh -c true` by fork and exec, nothing else", "ms", floor)
    in_server(server, container_chain(2))  # warm
    samples = [in_server(server, container_chain(chain)) / chain * 1000 for _ in range(rounds)]
    yield Line(f"container task, chain of {chain}", "ms/task", samples, "< 20", "wall in the server / tasks")
    samples = [in_server(server, container_fan(fan)) / fan * 1000 for _ in range(rounds)]
    yield Line(
        f"container task, {fan} side by side", "ms/task", samples, "< 20", "wall in the server / tasks"
    )


def shell_ms(count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        subprocess.run(["sh", "-c", "true"], check=True)
    return (time.perf_counter() - started) / count * 1000


def in_server(server: Server, pipeline) -> float:
    """Seconds from a run's creation to its end, by the server's own clock, so that asking costs nothing."""
    run = runs.succeed(server, pipeline, timeout=600)
    return (moment(run.body["finished_at"]) - moment(run.body["created_at"])).total_seconds()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def python(server: Server, folder: Path, length: int, rounds: int):
    """The same chain of no-op Python components here and there, in turns."""
    import peer

    ours = f"Python chain of {length}, Coracle"
    pipeline = peer.chain(length, is_installing=True)
    in_client(server, pipeline)  # makes the environment
    here, samples = [], {name: [] for name in PEERS}
    for _ in range(rounds):
        here.append(in_client(server, pipeline))
        for name, form in PEERS.items():
            samples[name].append(in_peer(folder, form, length))
    yield Line(
        ours,
        "s",
        here,
        note=f"{statistics.median(here) / length * 1000:.0f} ms/task, compile and wait included",
    )
    for name, seconds in samples.items():
        each = statistics.median(seconds) / length * 1000
        yield Line(
            f"Python chain of {length}, {name}",
            "s",
            seconds,
            note=f"{each:.0f} ms/task",
            extra={"peer_of": ours},
        )


def in_client(server: Server, pipeline) -> float:
    """Seconds for a user of the SDK, from the call that starts the run until its end is known."""
    started = time.perf_counter()
    runs.succeed(server, pipeline, timeout=600)
    return time.perf_counter() - started


def in_peer(folder: Path, form: str, length: int) -> float:
    """Seconds for the pipeline's call in a process of its own; its imports are not counted."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    ended = subprocess.run(
        [sys.executable, ROOT / "bench" / "peer.py", form, str(length), folder / "peer"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    if ended.returncode != 0:
        raise RuntimeError(f"kfp.local failed\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
    return float(ended.stdout.strip().splitlines()[-1])
