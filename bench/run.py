"""Measure a built server, and the same pipeline on `kfp.local`, in one run.

    make bench                    # or: python bench/run.py --coracle target/debug/coracle
    make bench ARGS=--quick       # fewer rounds

Prints a table and keeps every figure in bench/results/. What each line means: docs/benchmarks.md.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from line import Line
from report import ROOT, machine, write

sys.path.insert(0, str(ROOT / "e2e"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coracle", type=Path, default=ROOT / "target" / "debug" / "coracle")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller pipelines")
    options = parser.parse_args()
    # Read by e2e/server.py when it is imported, which is why these imports come here.
    os.environ["CORACLE_BIN"] = str(options.coracle.resolve())
    import resting
    import tasks

    started = time.time()
    lines: list[Line] = []

    def add(*measured: Line) -> None:
        for line in measured:
            lines.append(line)
            print(line.text(), flush=True)

    print(machine(), flush=True)
    print(f"{'':<58}{'median':>9} {'unit':<8}{'least – most':<20}{'target':<10}")
    with tempfile.TemporaryDirectory(prefix="coracle-bench-") as scratch:
        folder = Path(scratch)
        rounds, stored = (3, 1000) if options.quick else (10, 10_000)
        add(*resting.measure(folder / "resting", rounds, stored))
        add(*tasks.measure(folder / "tasks", is_quick=options.quick))
    print_ratios(lines)
    write({"lines": [{**asdict(line), "median": line.median} for line in lines]}, started)
    return 0


def print_ratios(lines: list[Line]) -> None:
    print()
    for line in lines:
        if "peer_of" in line.extra:
            ours = next(other for other in lines if other.name == line.extra["peer_of"])
            print(f"{line.name}: {line.median / ours.median:.1f} times ours")


if __name__ == "__main__":
    sys.exit(main())
