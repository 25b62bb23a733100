"""The Triton model that says how the engine behind the model `florence2` is; its config says what it answers."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# The two models lie side by side, and Triton shows each stub its own folder alone.
sys.path.insert(0, str(Path(__file__).parents[2] / "florence2" / "1"))

from florence2_adapter.health import worst_state
from florence2_adapter.orphan import Guard


class TritonPythonModel:
    """What Triton's Python stub calls."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - Triton's interface
        """Be ready; there is nothing to load."""
        self._guard = Guard()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Tell each who asks."""
        state = np.array([worst_state().encode()], dtype=np.object_)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("STATE", state)]) for _ in requests]

    def finalize(self) -> None:
        """Leave nothing behind."""
        self._guard.dismiss()
