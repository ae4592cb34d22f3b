"""Sets the breakpoints of a server: where it, a helper or a launcher ends, or what it cannot do.

`crates/breakpoint` reads the folder. Builds with the tests have breakpoints, others do not.
"""

from pathlib import Path

import pytest
from server import BINARY, ROOT, Server

VARIABLE = "CORACLE_BREAKPOINTS"
TABLE = ROOT / "docs" / "reliability.md"


def listed() -> list[str]:
    """Every breakpoint that the table of the documentation has, in its order."""
    rows = [line.split("|")[1].strip() for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    return [row.strip("`") for row in rows if "." in row]


class Breakpoints:
    """Of one server, given to it before it starts; set at any time."""

    def __init__(self, server: Server):
        # Tasks see this folder as it is; elsewhere, what they remove would be removed for them alone.
        self.folder = server.data_dir / "artifacts" / "breakpoints"
        self.folder.mkdir(parents=True)
        server.variables[VARIABLE] = str(self.folder)
        if VARIABLE.encode() not in BINARY.read_bytes():
            pytest.skip(
                f"{BINARY} HAS NO BREAKPOINTS: build it together with the tests, as `make build` does"
            )

    def end_at(self, point: str, visit: int = 1) -> None:
        """Whoever comes to a point for the so-manieth time ends there."""
        draft = self.folder / f".{point}"
        draft.mkdir()
        for number in range(1, visit + 1):
            (draft / str(number)).touch()
        draft.rename(self.folder / point)

    def was_reached(self, point: str) -> bool:
        return not any((self.folder / point).iterdir())

    def fail(self, point: str, how: str) -> None:
        """From now on an operation fails."""
        draft = self.folder / f".{point}"
        draft.write_text(how)
        draft.rename(self.folder / point)

    def clear(self, point: str) -> None:
        """Takes a point back."""
        place: Path = self.folder / point
        if place.is_dir():
            for visit in place.iterdir():
                visit.unlink()
            place.rmdir()
        else:
            place.unlink()
