"""Linear layers for few rows, where the time goes to reading weights and not to multiplying."""

from typing import Any

import torch
from torch import Tensor

_packing = torch.ops.mkldnn_prepacked
# The rows that weights are packed for; a call may have any number, and none that was measured profits from another.
_PACKED_FOR_ROWS = 8


class PackedLinear:
    """A linear layer whose weight is kept as (in, out): read in that order, a single row is done soonest.

    On CPU a second copy is kept as oneDNN likes it. For two rows and more MKL, which `addmm` uses, first rearranges the
    weight at every call, which takes longer than the product; oneDNN's convolution of width 1 takes it as it lies. The
    operators are internal to PyTorch: where they are missing, `addmm` does the work.

    Args:
        weight: (in, out).
        bias: (out,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = weight.contiguous()
        self._bias = bias
        self._packed = _packed(weight, bias) if _can_pack(weight) else None

    @classmethod
    def of(cls, *layers: torch.nn.Linear) -> "PackedLinear":
        """The layers as one, their outputs side by side."""
        bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])
        return cls(torch.cat([layer.weight.detach() for layer in layers]).t(), bias)

    def __call__(self, states: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        rows = len(states)
        if self._packed is not None and rows > 1:
            columns = states.t().reshape(1, -1, 1, rows)
            product: Tensor = _packing.conv2d_run(columns, self._packed)
            return product.view(-1, rows).t().contiguous()
        return states @ self._weight if self._bias is None else torch.addmm(self._bias, states, self._weight)


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and hasattr(_packing, "conv2d_prepack")


def _packed(weight: Tensor, bias: Tensor | None) -> Any:
    inner, outer = weight.shape
    kernel = weight.t().contiguous().view(outer, inner, 1, 1)
    one = [1, 1]
    return _packing.conv2d_prepack(kernel, bias, one, [0, 0], one, 1, [1, inner, 1, _PACKED_FOR_ROWS], "none")
