"""Measure a built server, and the same pipeline on `kfp.local`, in one run.

    make bench                    # or: python bench/run.py --coracle target/debug/coracle
    make bench ARGS=--quick       # fewer rounds

Prints a table and keeps every figure in bench/results/. What each line means: docs/benchmarks.md.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from line import Line

ROOT = Path(__file__).resolve().parent.parent
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
        add(*resting.measure(folder / "resting", rounds=3 if options.quick else 10))
        add(*tasks.measure(folder / "tasks", is_quick=options.quick))
    print_ratios(lines)
    write(lines, started)
    return 0


def machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.release()}, Python {platform.python_version()}, load {load}"


def print_ratios(lines: list[Line]) -> None:
    print()
    for line in lines:
        if "peer_of" in line.extra:
            ours = next(other for other in lines if other.name == line.extra["peer_of"])
            print(f"{line.name}: {line.median / ours.median:.1f} times ours")


def write(lines: list[Line], started: float) -> None:
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    target = folder / time.strftime("%Y-%m-%dT%H%M%S.json", time.localtime(started))
    body = {
        "machine": machine(),
        "seconds": round(time.time() - started, 1),
        "lines": [{**asdict(line), "median": line.median} for line in lines],
    }
    target.write_text(json.dumps(body, indent=1))
    print(f"\nwrote {target.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
