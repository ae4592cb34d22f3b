"""A server on its own: how soon it is ready, and what it costs while nobody asks for anything."""

import contextlib
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import runs
from kfp import dsl
from line import Line
from memory import family, memory_mb
from server import BINARY, Server, environment, free_port

IDLE_SECONDS = 10


@dsl.pipeline(name="bench-stored")
def importing():
    """A run without a Pod."""
    dsl.importer(artifact_uri="s3://bucket/nothing", artifact_class=dsl.Dataset)


def measure(folder: Path, rounds: int, stored: int):
    """Figures of a server at rest, new, and with so many finished runs."""
    folder.mkdir()
    yield Line("the binary", "MB", [BINARY.stat().st_size / 1e6], "< 60")
    fresh = [ready_ms(folder / f"fresh-{number}") for number in range(rounds)]
    yield Line("up to ready, new data directory", "ms", fresh, "< 500")
    again = [ready_ms(folder / "fresh-0") for _ in range(rounds)]
    yield Line("up to ready, data directory in use before", "ms", again, "< 500")

    yield from idle(folder / "fresh-0", "")
    fill(folder / "full", stored)
    full = [ready_ms(folder / "full") for _ in range(rounds)]
    yield Line(f"up to ready, {stored} finished runs", "ms", full, "< 200")
    yield from idle(folder / "full", f", {stored} finished runs")


def fill(data_dir: Path, count: int) -> None:
    """Has a server run a pipeline so many times."""
    server = Server(data_dir, data_dir.with_suffix(".log")).start()
    try:
        document = runs.compiled(importing)
        with ThreadPoolExecutor(4) as clients:
            started = list(clients.map(lambda _: runs.submit_document(server, document), range(count)))
        for run_id in started:
            assert runs.finish(server, run_id, timeout=600).state == "SUCCEEDED"
    finally:
        server.stop()


def idle(data_dir: Path, which: str):
    """What a server costs on this directory while nobody asks for anything."""
    server = Server(data_dir, data_dir.with_suffix(".log")).start()
    try:
        time.sleep(3)
        rss, pss = memory_mb(family(server.process.pid))
        yield Line(f"idle, resident memory (RSS){which}", "MB", [rss], "< 60")
        yield Line(f"idle, proportional memory (PSS){which}", "MB", [pss])
        before = spent(server.process.pid)
        time.sleep(IDLE_SECONDS)
        after = spent(server.process.pid)
        (ticks, switches) = (since(new, old) / IDLE_SECONDS for new, old in zip(after, before, strict=True))
        share = ticks / os.sysconf("SC_CLK_TCK") * 100
        yield Line(f"idle, processor{which}", "%", [share], "0", "of one core")
        yield Line(f"idle, wake-ups{which}", "/s", [switches])
    finally:
        server.stop()


def ready_ms(data_dir: Path) -> float:
    """From the start of the process to the first good answer to /healthz."""
    port = free_port()
    command = [BINARY, "up", "--foreground", "--data-dir", data_dir, "--port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    try:
        while not answers(port):
            if process.poll() is not None or time.perf_counter() - started > 30:
                raise RuntimeError("the server did not come up")
            time.sleep(0.001)
        return (time.perf_counter() - started) * 1000
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(
                f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def spent(pid: int) -> tuple[dict, dict]:
    """Clock ticks that each process has used, and how often each thread gave up the processor by itself."""
    ticks, switches = {}, {}
    for member in family(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks[member] = int(fields[11]) + int(fields[12])
        for status in Path(f"/proc/{member}/task").glob("*/status"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in status.read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        switches[status.parent.name] = int(line.split()[1])
    return ticks, switches


def since(new: dict, old: dict) -> int:
    """What was added between two readings, but for what those added who ended in between: it is not known."""
    return sum(count - old.get(name, 0) for name, count in new.items())
