"""What was measured of each peer, and the table that shows it."""

import statistics
from dataclasses import dataclass, field

from contenders import Peer

#: The longest last: a server whose run was given up is not asked for another one.
WORKLOADS = {"chain": "W1 chain", "digits": "W3 digits", "fan": "W2 fan"}
BASE = "coracle"


@dataclass
class Figures:
    """All that was measured of one peer."""

    peer: Peer
    version: str
    samples: dict = field(default_factory=lambda: {workload: [] for workload in WORKLOADS})
    #: Why a workload has no figure, or none of the whole peer under the name "".
    reasons: dict = field(default_factory=dict)
    stopped_after: dict = field(default_factory=dict)
    ready_seconds: list = field(default_factory=list)
    idle_mb: list = field(default_factory=list)

    def seconds(self, workload: str) -> float | None:
        samples = self.samples[workload]
        return statistics.median(sample.seconds for sample in samples) if samples else None

    def start(self) -> float | None:
        """How long it takes until tasks can run: a server's start, or else a command's imports."""
        found = self.ready_seconds or [
            sample.start_seconds for samples in self.samples.values() for sample in samples
        ]
        return statistics.median(found) if found else None

    def peak(self) -> tuple[float, float] | None:
        found = [sample for samples in self.samples.values() for sample in samples]
        return (max(s.rss_mb for s in found), max(s.pss_mb for s in found)) if found else None


def summary(figures: Figures) -> str:
    parts = [figures.peer.title]
    for workload, title in WORKLOADS.items():
        samples = figures.samples[workload]
        parts.append(f"{title} {samples[-1].seconds:.2f} s" if samples else f"{title} –")
    return "; ".join(parts + [f"{name} {why}".strip() for name, why in figures.reasons.items()])


def table(measured: list[Figures]) -> str:
    """A table in Markdown, and below it why figures are missing."""
    base = next(figures for figures in measured if figures.peer.name == BASE)
    head = ["", "version", "start s"]
    for workload in sorted(WORKLOADS, key=WORKLOADS.get):
        head += [f"{WORKLOADS[workload]} s", "ratio"]
    rows = [[*head, "peak RSS / PSS MB", "idle RSS / PSS MB", "kept"]]
    notes = []
    for figures in measured:
        row = [figures.peer.title, figures.version, number(figures.start())]
        for workload in sorted(WORKLOADS, key=WORKLOADS.get):
            row += cells(figures, base, workload)
        idle = tuple(map(statistics.median, zip(*figures.idle_mb, strict=True))) if figures.idle_mb else None
        rows.append([*row, pair(figures.peak()), pair(idle), figures.peer.keeps])
        notes += [
            f"{figures.peer.title}{', ' + WORKLOADS[name] if name else ''}: {reason}"
            for name, reason in figures.reasons.items()
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) + 3)]
    rows.insert(1, ["---"] * len(widths))
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([*lines, "", *notes]) if notes else "\n".join(lines)


def cells(figures: Figures, base: Figures, workload: str) -> list[str]:
    ours, theirs = base.seconds(workload), figures.seconds(workload)
    if theirs is not None:
        return [number(theirs), f"{theirs / ours:.2g}" if ours else "–"]
    limit = figures.stopped_after.get(workload)
    if limit is not None:
        return [f"> {limit:.0f}", f"> {limit / ours:.2g}" if ours else "–"]
    return ["failed" if {"", workload} & set(figures.reasons) else "–", "–"]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def pair(values: tuple[float, float] | None) -> str:
    return "–" if values is None else f"{values[0]:.0f} / {values[1]:.0f}"
