"""A text report of what an operator wants to know about a checkpoint before serving it. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap

_WIDTH = 100
_INDENT = 2


@dataclass
class Report:
    """What was found out about a checkpoint, up to the point where it was refused, if it was.

    Attributes:
        facts: pairs of a label and its text, in order.
        surprises: what an operator might not expect; the checkpoint is served all the same.
        refusal: why it cannot be served; empty if it can.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    refusal: str = ""

    def add(self, label: str, text: str) -> None:
        """Add a text under a label."""
        self.facts.append((label, text))

    def __str__(self) -> str:
        """Aligned lines; the last one says whether the checkpoint can be served."""
        surprises = self.surprises or (["none"] if not self.refusal else [])
        rows = [*self.facts, *(("surprises" if i == 0 else "", text) for i, text in enumerate(surprises))]
        verdict = f"refused: {' '.join(self.refusal.split())}" if self.refusal else "can be served"
        return "\n".join([*_aligned(rows), verdict])


def size(count: int) -> str:
    """A number of bytes in a suitable unit."""
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """The names, at most `most` of them."""
    if not names:
        return "none"
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    column = max((len(label) for label, _ in rows), default=0) + _INDENT
    lines = []
    for label, text in rows:
        first, *others = wrap(text, _WIDTH - column, break_long_words=False, break_on_hyphens=False) or [""]
        lines.append(f"{label:{column}}{first}".rstrip())
        lines.extend(" " * column + other for other in others)
    return lines
