"""A linear layer by the faster of PyTorch's two matrix libraries on a CPU.

In float32 `torch.nn.Linear` first copies the bias into every row of the output, then has MKL add the product to it.
oneDNN, the library that PyTorch takes for convolutions, adds the bias as it writes the product: over many rows 1 to
10 % less time at Florence-2's sizes, and over one row, where the weights are what has to be read, a third less. But it
plans every call anew, 0.03 to 0.08 ms, which small weights do not earn back. PyTorch reaches it through internal
operators, so where they are missing, and for small weights and any other device or type, this is
`torch.nn.functional.linear`. For a few rows see `packed_linear.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
    hasattr(torch.ops.mkldnn, operator) for operator in ("_linear_pointwise", "_reorder_linear_weight")
)
_LEAST_NUMBERS = 1 << 18


def suits_onednn(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by this weight, and sooner than MKL."""
    is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    return bool(_HAS_ONEDNN and is_plain and weight.numel() >= _LEAST_NUMBERS)


def linear(layer: Any, rows: Tensor) -> Tensor:
    """What `layer(rows)` gives: `torch.nn.Linear` over (..., inputs)."""
    return linear_of(rows, layer.weight, layer.bias)


def linear_of(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """What `functional.linear(rows, weight, bias)` gives.

    Args:
        rows: (..., inputs).
        weight: (outputs, inputs); on CPU in float32 also one that oneDNN has packed.
        bias: (outputs,), or None.
        activation: `none`; where `suits_onednn(weight)` also `gelu`.
    """
    if suits_onednn(weight):
        # The last argument chooses among formulas of an activation; "none" is GELU by the error function.
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, activation, [], "none")
        return product
    assert activation == "none", "only oneDNN applies activations"
    return functional.linear(rows, weight, bias)
