"""The model's adapters have numbers. Imports no torch."""

from typing import Final

BASE: Final = -1
"""The index of no adapter: the model as it is."""
