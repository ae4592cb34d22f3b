"""A server on its own: how soon it is ready, and what it costs while nobody asks for anything."""

import os
import socket
import subprocess
import time
from pathlib import Path

from line import Line
from memory import family, memory_mb
from server import BINARY, Server, environment, free_port

IDLE_SECONDS = 10


def measure(folder: Path, rounds: int):
    folder.mkdir()
    fresh = [ready_ms(folder / f"fresh-{number}") for number in range(rounds)]
    yield Line("up to ready, new data directory", "ms", fresh, "< 500")
    again = [ready_ms(folder / "fresh-0") for _ in range(rounds)]
    yield Line("up to ready, data directory in use before", "ms", again, "< 500")

    server = Server(folder / "idle", folder / "idle.log").start()
    try:
        time.sleep(3)
        rss, pss = memory_mb(family(server.process.pid))
        yield Line("idle, resident memory (RSS)", "MB", [rss], "< 80")
        yield Line("idle, proportional memory (PSS)", "MB", [pss])
        before = spent(server.process.pid)
        time.sleep(IDLE_SECONDS)
        after = spent(server.process.pid)
        share = (after[0] - before[0]) / IDLE_SECONDS * 100
        yield Line("idle, processor", "%", [share], "0", "of one core")
        yield Line("idle, wake-ups", "/s", [(after[1] - before[1]) / IDLE_SECONDS])
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


def spent(pid: int) -> tuple[float, int]:
    """Processor seconds, and how often a thread gave up the processor of its own accord."""
    ticks, switches = 0, 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for status in Path(f"/proc/{member}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    switches += int(line.split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), switches
