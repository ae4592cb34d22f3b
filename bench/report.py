"""What every benchmark says about the machine, and where it keeps its figures."""

import json
import os
import platform
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.release()}, Python {platform.python_version()}, load {load}"


def write(figures: dict, started: float, prefix: str = "") -> None:
    """Keeps figures in bench/results/, under the time at which measuring began."""
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    target = folder / time.strftime(f"{prefix}%Y-%m-%dT%H%M%S.json", time.localtime(started))
    body = {"machine": machine(), "seconds": round(time.time() - started, 1), **figures}
    target.write_text(json.dumps(body, indent=1))
    print(f"\nwrote {target.relative_to(ROOT)}")
