"""A linear layer over many rows, by the faster of PyTorch's two matrix libraries on a CPU.

In float32 `torch.nn.Linear` first copies the bias into every row of the output, then has MKL add the product to it.
oneDNN, the library that PyTorch takes for convolutions, adds the bias as it writes the product: 1 to 10 % less time at
Florence-2's sizes. PyTorch reaches it through an internal operator, so where that is missing, and for any other device
or type, this is `torch.nn.functional.linear`. For few rows, where weights are what has to be read, see
`packed_linear.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


def linear(layer: Any, rows: Tensor) -> Tensor:
    """What `layer(rows)` gives: `torch.nn.Linear` over (..., inputs)."""
    return linear_of(rows, layer.weight, layer.bias)


def linear_of(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `functional.linear(rows, weight, bias)` gives."""
    if _HAS_ONEDNN and rows.device.type == "cpu" and rows.dtype == torch.float32:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return product
    return functional.linear(rows, weight, bias)
