"""One measured quantity, as the table and the JSON file show it."""

import statistics
from dataclasses import dataclass, field


@dataclass
class Line:
    """One measured quantity: every sample, and what the middle one is compared with."""

    name: str
    unit: str
    samples: list[float]
    target: str = ""
    note: str = ""
    extra: dict = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def text(self) -> str:
        spread = f"{min(self.samples):.4g} – {max(self.samples):.4g}" if len(self.samples) > 1 else ""
        return f"{self.name:<58}{self.median:>9.4g} {self.unit:<8}{spread:<20}{self.target:<10}{self.note}"
