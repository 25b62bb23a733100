"""The layers of a model that adapters can target, by the names of their modules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import Factors
from florence2_server.engine.model.linear import Linear
from florence2_server.engine.model.low_rank import LowRank


class Convolution:
    """A convolution of channels-last activations. The weight of an adapter is made anew for each call.

    Args:
        convolution: the weights, which are used, not copied.
    """

    def __init__(self, convolution: torch.nn.Conv2d) -> None:
        self._convolution = convolution
        self.factors: dict[int, Factors] = {}

    def __call__(self, hidden: Tensor, adapter: int = BASE) -> Tensor:
        """(images, height, width, channels) -> the same: PyTorch sees the layout from the strides, and keeps it."""
        layer = self._convolution
        weight = layer.weight
        if (factors := self.factors.get(adapter)) is not None:
            weight = weight + (factors.up @ factors.down.flatten(1)).view(weight.shape)
        convolved = functional.conv2d(
            hidden.permute(0, 3, 1, 2), weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
        return convolved.permute(0, 2, 3, 1).contiguous()


class Layers:
    """Makes layers from modules, and remembers them by the modules' names.

    Args:
        model: the model that the modules belong to.

    Attributes:
        copied: the modules whose weights have been copied, so that they are not needed any more.
    """

    def __init__(self, model: Any) -> None:
        self.copied: list[torch.nn.Module] = []
        self._names = {id(module): name for name, module in model.named_modules()}
        self._low_ranks: dict[str, LowRank] = {}
        self._convolutions: dict[str, Convolution] = {}

    def linear(
        self,
        *modules: torch.nn.Linear,
        activation: Callable[[Tensor], Tensor] | None = None,
        few_rows: bool = False,
    ) -> Linear:
        """See `Linear.of`."""
        linear = Linear.of(*modules, activation=activation, few_rows=few_rows)
        if len(modules) > 1:
            self.copied += modules
        for module, low_rank in zip(modules, linear.low_ranks, strict=True):
            self._low_ranks[self._names[id(module)]] = low_rank
        return linear

    def convolution(self, module: torch.nn.Conv2d) -> Convolution:
        """A convolution of channels-last activations."""
        convolution = Convolution(module)
        self._convolutions[self._names[id(module)]] = convolution
        return convolution

    def put(self, adapter: int, name: str, factors: Factors) -> None:
        """Add an adapter's factors to the layer that was made from a module.

        Raises:
            KeyError: there is no such layer.
        """
        if (convolution := self._convolutions.get(name)) is not None:
            convolution.factors[adapter] = factors
        else:
            self._low_ranks[name].put(adapter, factors)

    def remove(self, adapter: int) -> None:
        """Remove an adapter's factors from all layers."""
        for low_rank in self._low_ranks.values():
            low_rank.remove(adapter)
        for convolution in self._convolutions.values():
            convolution.factors.pop(adapter, None)
