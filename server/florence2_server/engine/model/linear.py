"""Linear layers: the only place where the model multiplies states by a weight matrix.

`Linear` chooses among three ways to compute the product:

- `torch.nn.functional.linear`: on a GPU, in half precision, and for small weights.
- oneDNN, in float32 on a CPU. `functional.linear` first copies the bias into every row of the output, then has MKL add
  the product to it; oneDNN adds the bias as it writes the product. At Florence-2's sizes that takes 1 to 10 % less time
  over many rows, and a third less over one row, where the time goes to reading the weight. But oneDNN plans each call
  anew, 0.03 to 0.08 ms, which does not pay off for small weights.
- oneDNN with a packed copy of the weight, for a few rows. MKL rearranges the weight at every call, which takes longer
  than the product itself.

PyTorch uses oneDNN for convolutions; for linear layers it has only internal operators. Without them, everything is left
to `functional.linear`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from florence2_server.engine.model.low_rank import BatchAdapters, LowRank

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
    hasattr(torch.ops.mkldnn, operator) for operator in ("_linear_pointwise", "_reorder_linear_weight")
)
_LEAST_ONEDNN_NUMBERS = 1 << 18
# The number of rows that weights are packed for; calls may have any number. Between 2 and 48 rows, no other value that
# was measured is faster.
_PACKED_FOR_ROWS = 8


class Linear:
    """A linear layer, or several layers with the same input side by side, and the activation that follows.

    What adapters add is computed apart and added to the product, before the activation, which is then not fused.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,), or None.
        activation: applied to the product, if any.
        few_rows: whether the layer sees only a handful of rows at a time, as in a decode step. If so, a packed copy of
            the weight is kept when that is faster.
        parts: the outputs of each layer, and the factors of the adapters that target it.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        *,
        few_rows: bool = False,
        parts: Sequence["LinearPart"] = (),
    ) -> None:
        self.weight = weight
        self.bias = bias
        self._uses_onednn = _is_faster_with_onednn(weight)
        self._packed = _pack(weight) if few_rows and self._uses_onednn else None
        # A separate call of GELU costs as much as a small product; oneDNN applies it as it writes the product.
        self._fused = "gelu" if self._packed is not None and _is_exact_gelu(activation) else "none"
        self._activation = activation
        self._parts = parts

    @classmethod
    def of(
        cls,
        *layers: torch.nn.Linear,
        activation: Callable[[Tensor], Tensor] | None = None,
        few_rows: bool = False,
    ) -> "Linear":
        """The layers as one, with their outputs side by side. The weight of a single layer is not copied."""
        weights: list[Tensor] = [layer.weight.detach() for layer in layers]
        biases: list[Tensor] = [layer.bias.detach() for layer in layers if layer.bias is not None]
        ends = list(itertools.accumulate(map(len, weights), initial=0))
        parts = [
            LinearPart(slice(start, end), LowRank(weight))
            for weight, (start, end) in zip(weights, itertools.pairwise(ends), strict=True)
        ]
        weight = weights[0] if len(layers) == 1 else torch.cat(weights)
        bias = (biases[0] if len(layers) == 1 else torch.cat(biases)) if biases else None
        return cls(weight, bias, activation, few_rows=few_rows, parts=parts)

    @property
    def low_ranks(self) -> list[LowRank]:
        """The factors of adapters, for each of the layers."""
        return [part.low_rank for part in self._parts]

    def __call__(self, states: Tensor, adapters: BatchAdapters | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs).

        Args:
            states: the input.
            adapters: of the input's rows, that is of all its dimensions but the last; None if no row has one.
        """
        if adapters is not None and (parts := [part for part in self._parts if part.is_targeted(adapters)]):
            product = self._product(states, "none")
            rows, rows_of_states = product.view(-1, product.shape[-1]), states.reshape(-1, states.shape[-1])
            for part in parts:
                adapters.add_products(rows[:, part.outputs], rows_of_states, part.low_rank)
            return product if self._activation is None else self._activation(product)
        product = self._product(states, self._fused)
        return product if self._activation is None or self._fused != "none" else self._activation(product)

    def merged(self, adapter: int) -> "Linear":
        """This layer with an adapter's factors in its weight, for a layer that is not applied to rows."""
        targeted = [part for part in self._parts if adapter in part.low_rank.spans]
        if not targeted:
            return self
        weight = self.weight.clone()
        for part in targeted:
            weight[part.outputs] += part.low_rank.delta(adapter)
        return Linear(weight, self.bias, self._activation)

    def _product(self, states: Tensor, fused: str) -> Tensor:
        if not self._uses_onednn:
            return functional.linear(states, self.weight, self.bias)
        # A single row is faster with the weight as it is.
        weight = self.weight if self._packed is None or len(states) == 1 else self._packed
        # The last argument selects the formula of the activation; "none" is GELU by the error function.
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, self.bias, fused, [], "none")
        return product


class LinearPart(NamedTuple):
    """One of the layers that a `Linear` computes side by side."""

    outputs: slice
    low_rank: LowRank

    def is_targeted(self, adapters: BatchAdapters) -> bool:
        """Whether any adapter of a batch targets this layer."""
        return not adapters.active.isdisjoint(self.low_rank.spans)


def _is_faster_with_onednn(weight: Tensor) -> bool:
    is_float32_on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return bool(_HAS_ONEDNN and is_float32_on_cpu and weight.numel() >= _LEAST_ONEDNN_NUMBERS)


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
    return packed


def _is_exact_gelu(activation: Any) -> bool:
    """Whether it is GELU by the error function, which BART uses; transformers has its own class for it."""
    name = type(activation).__name__
    return name == "GELUActivation" or (name == "GELU" and activation.approximate == "none")
