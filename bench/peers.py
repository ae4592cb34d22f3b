"""Run the same three workloads on Coracle and on what people would use instead, in turns.

    make bench-peers        # or: python bench/peers.py --coracle target/release/coracle
    make bench-peers ARGS="--quick --only luigi,airflow"

Prints a table and keeps every figure in bench/results/. What it means: docs/benchmarks.md.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from contenders import PEERS, Peer, install
from figures import BASE, WORKLOADS, Figures, summary, table
from report import ROOT, machine, write
from stage import Failed, Stage, TooLong, adopt, memory_of_children, sweep


def main() -> int:
    options = parse()
    adopt()
    started = time.time()
    about = machine()
    print(about, flush=True)
    measured = [Figures(peer, peer.version(options.coracle)) for peer in chosen(options.only)]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    for figures in measured:
        try:
            install(figures.peer, uv)
        except RuntimeError as error:
            figures.reasons[""] = str(error)
    with tempfile.TemporaryDirectory(prefix="coracle-peers-", ignore_cleanup_errors=True) as scratch:
        for number in range(1, options.rounds + 1):
            for figures in measured:
                if "" in figures.reasons:
                    continue
                folder = Path(scratch) / f"{number}-{figures.peer.name}"
                try:
                    measure(Stage(figures.peer, folder, options.coracle), figures, options)
                finally:
                    sweep()
                print(f"round {number}: {summary(figures)}", flush=True)
    print(f"\n{table(measured)}")
    body = {"machine": about, "rounds": options.rounds, "peers": [asdict(figures) for figures in measured]}
    write(body, started, "peers-")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coracle", type=Path, default=ROOT / "target" / "debug" / "coracle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument(
        "--only", default="", metavar="NAME,…", help=", ".join(peer.name for peer in PEERS[1:])
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=100,
        help="seconds after which a workload is stopped, and not tried again",
    )
    parser.add_argument("--all", action="store_true", help="no limit")
    options = parser.parse_args()
    unknown = set(filter(None, options.only.split(","))) - {peer.name for peer in PEERS}
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    options.coracle = options.coracle.resolve()
    options.rounds = 1 if options.quick else options.rounds
    options.limit = 24 * 3600 if options.all else options.limit
    return options


def chosen(only: str) -> list[Peer]:
    """The peers that were asked for; Coracle always, as what the others are compared with."""
    names = set(filter(None, only.split(",")))
    return [peer for peer in PEERS if not names or peer.name in names | {BASE}]


def measure(stage: Stage, figures: Figures, options: argparse.Namespace) -> None:
    """One round of one peer. What fails is kept as the reason why there is no figure."""
    try:
        if not figures.peer.has_server:
            workloads(stage, figures, options.limit)
            return
        with stage.server() as ready:
            figures.ready_seconds.append(ready)
            time.sleep(2 if options.quick else 5)
            figures.idle_mb.append(memory_of_children())
            for workload in ("chain", "digits"):
                stage.run(workload, max(options.limit, 180))
            workloads(stage, figures, options.limit)
    except Failed as error:
        figures.reasons[""] = str(error)


def workloads(stage: Stage, figures: Figures, limit: float) -> None:
    for workload in WORKLOADS:
        if workload in figures.reasons:
            continue
        try:
            figures.samples[workload].append(stage.run(workload, limit))
        except Failed as error:
            figures.reasons[workload] = str(error)
            if isinstance(error, TooLong):
                figures.stopped_after[workload] = limit
                if figures.peer.has_server:
                    return
        if not figures.peer.has_server:
            sweep()


if __name__ == "__main__":
    sys.exit(main())
