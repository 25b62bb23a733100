"""Linear layers for few rows, where the time goes to reading weights and not to multiplying."""

from typing import Any

import torch
from torch import Tensor

from florence2_engine.linear import linear_of, suits_onednn

# The rows that weights are packed for; a call may have any number. Between 2 and 48 rows none that was measured profits
# from another.
_PACKED_FOR_ROWS = 8


class PackedLinear:
    """A linear layer, its activation with it, for a handful of rows.

    On CPU a second copy of the weight is kept as oneDNN likes it for a few rows. `torch.nn.functional.linear` has MKL
    rearrange the weight at every call, which takes longer than the product. A single row is done sooner with the weight
    as it is. The operators are internal to PyTorch: where they are missing, and for small weights, `functional.linear`
    does the work.

    Args:
        weight: (out, in).
        bias: (out,), or None.
        activation: applied to the product; None: nothing is.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: torch.nn.Module | None = None) -> None:
        self._weight = weight
        self._bias = bias
        self._packed = _packed(weight) if suits_onednn(weight) else None
        # Its own call costs as much as a small product; oneDNN applies it as it writes the product.
        self._fused = "gelu" if _is_exact_gelu(activation) and self._packed is not None else "none"
        self._activation = activation if self._fused == "none" else None

    @classmethod
    def of(cls, *layers: torch.nn.Linear, activation: torch.nn.Module | None = None) -> "PackedLinear":
        """The layers as one, their outputs side by side."""
        weights: list[Tensor] = [layer.weight.detach() for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        if len(layers) == 1:  # as it is: no copy
            return cls(weights[0], layers[0].bias, activation)
        return cls(torch.cat(weights), torch.cat(biases) if biases else None, activation)

    def __call__(self, states: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        weight = self._weight if self._packed is None or len(states) == 1 else self._packed
        product = linear_of(states, weight, self._bias, self._fused)
        return product if self._activation is None else self._activation(product)


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
    return packed


def _is_exact_gelu(activation: Any) -> bool:
    """Whether it is GELU by the error function, BART's; transformers has a class of its own for it."""
    name = type(activation).__name__
    return name == "GELUActivation" or (name == "GELU" and activation.approximate == "none")
