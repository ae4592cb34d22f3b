"""Memory of a process and of everything that it started."""

import os
import threading
from pathlib import Path

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                parent = file.read().rpartition(b")")[2].split(None, 2)[1]
        except OSError:  # it has ended
            continue
        children.setdefault(int(parent), []).append(int(name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def memory_mb(pids: list[int]) -> tuple[float, float]:
    """RSS and PSS of processes together."""
    sums = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has ended
            continue
        for line in lines:
            name, kilobytes = line.split()[:2]
            if name in sums:
                sums[name] += int(kilobytes)
    return sums["Rss:"] / 1024, sums["Pss:"] / 1024


def resident_mb(pids: list[int]) -> float:
    """RSS of processes together, which costs much less to ask for than PSS."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:  # it has ended
            continue
    return pages * PAGE_MB


class Peak(threading.Thread):
    """The most memory that some processes have together while the block runs.

    PSS is read only when RSS has grown, so that watching costs little.
    """

    INTERVAL_SECONDS = 0.05

    def __init__(self, find_pids):
        super().__init__(daemon=True)
        self.find_pids = find_pids
        self.rss = self.pss = 0.0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(self.INTERVAL_SECONDS):
            pids = self.find_pids()
            if resident_mb(pids) > self.rss * 1.01:
                rss, pss = memory_mb(pids)
                self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.is_over.set()
        self.join()
