"""A linear layer over many rows, with the faster of PyTorch's two matrix libraries on a CPU.

For float32 `torch.nn.Linear` copies the bias into every row of the output and has MKL add the product to it. oneDNN, the
library that PyTorch uses for convolutions, adds the bias while it writes the product: 2 to 10 % less time at
Florence-2's sizes (benchmarks/encoding.py). PyTorch calls it through an operator that is internal, so where the operator
is missing the layer's own forward runs.
"""

from typing import Any

import torch
from torch import Tensor

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(layer: Any, rows: Tensor) -> Tensor:
    """What `layer(rows)` gives.

    Args:
        layer: `torch.nn.Linear`.
        rows: (..., inputs).

    Returns:
        (..., outputs).
    """
    return linear_of(rows, layer.weight, layer.bias)


def linear_of(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `torch.nn.functional.linear(rows, weight, bias)` gives."""
    if _HAS_ONEDNN and rows.device.type == "cpu" and rows.dtype == torch.float32:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return product
    return torch.nn.functional.linear(rows, weight, bias)
