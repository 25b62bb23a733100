"""A text report about a checkpoint or an adapter, for operators who are about to serve it. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from florence2_server.engine.errors import CheckpointError

_WIDTH = 100
_INDENT = 2


@dataclass
class Report:
    """What is known about a checkpoint or an adapter; if it cannot be served, what was found before the error.

    Attributes:
        facts: pairs of a label and its text, in order.
        warnings: what an operator might not expect, but which does not keep it from being served.
        error: why it cannot be served; empty if it can.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str = ""

    def add(self, label: str, text: str) -> None:
        """Add a text under a label."""
        self.facts.append((label, text))

    def fail(self, error: CheckpointError) -> None:
        """State why it cannot be served, without its name, which is a fact."""
        cause = error.__cause__
        self.error = str(cause if isinstance(cause, CheckpointError) else error)

    def __str__(self) -> str:
        """Aligned lines, the last of which says whether it can be served."""
        warnings = self.warnings or (["none"] if not self.error else [])
        lines = [*self.facts, *(("warnings" if i == 0 else "", text) for i, text in enumerate(warnings))]
        verdict = f"cannot be served: {' '.join(self.error.split())}" if self.error else "can be served"
        return "\n".join([*_aligned(lines), verdict])


def size(count: int) -> str:
    """A number of bytes, with a suitable unit."""
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


def _aligned(facts: Sequence[tuple[str, str]]) -> list[str]:
    column = max((len(label) for label, _ in facts), default=0) + _INDENT
    lines = []
    for label, text in facts:
        first, *others = wrap(text, _WIDTH - column, break_long_words=False, break_on_hyphens=False) or [""]
        lines.append(f"{label:{column}}{first}".rstrip())
        lines.extend(" " * column + other for other in others)
    return lines
