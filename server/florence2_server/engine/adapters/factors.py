"""The low-rank factors of an adapter, checked against the layers that they change."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from florence2_server.engine.adapters.adapter_config import AdapterConfig
from florence2_server.engine.adapters.conversion import Conversion
from florence2_server.engine.adapters.tensor_names import HEAD, Part, TensorName
from florence2_server.engine.errors import AdapterError
from florence2_server.engine.model.adapter_tensors import Factors


def read_factors(
    names: Mapping[tuple[str, Part], TensorName],
    tensors: Mapping[str, Tensor],
    layers: Mapping[str, Any],
    config: AdapterConfig,
    conversion: Conversion,
    *,
    vocabulary: int,
    max_rank: int,
) -> dict[str, Factors]:
    """The factors by the native names of their modules.

    Args:
        names: the names of the tensors.
        tensors: by their names.
        layers: all modules of the model, by name.
        config: the adapter's.
        conversion: to the model's dtype and device.
        vocabulary: the number of tokens, with those that the adapter adds.
        max_rank: the highest rank that is served.

    Raises:
        AdapterError: a target does not exist or is no linear layer or convolution, a factor is missing, or has a wrong
            shape or rank.
    """
    factors = {}
    for module in dict.fromkeys(module for module, part in names if part in (Part.DOWN, Part.UP)):
        down, up = (_half(names, module, part) for part in (Part.DOWN, Part.UP))
        if (layer := layers.get(module)) is None:
            raise AdapterError(f"{down.full}: got a target that the model does not have, {down.saved_module}")
        rank = config.rank_of(down.saved_module)
        if rank > max_rank:
            raise AdapterError(f"{down.saved_module}: got rank {rank}, expected at most {max_rank}")
        down_shape, up_shape = _shapes(down, layer, rank, vocabulary)
        for name, shape in ((down, down_shape), (up, up_shape)):
            if (found := tuple(tensors[name.full].shape)) != shape:
                raise AdapterError(f"{name.full}: got shape {found}, expected {shape}{_why(name, found, shape)}")
        scaling = config.scaling_of(down.saved_module)
        factors[module] = Factors(
            down=conversion(down.full, tensors[down.full]),
            up=conversion(up.full, tensors[up.full].flatten(1), scaling),
        )
    return factors


def _why(name: TensorName, found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """The likely reason for a wrong shape, if there is one."""
    is_vocabulary = name.module == HEAD and name.part is Part.UP and found[1:] == shape[1:]
    return ": it was trained on a checkpoint with another number of token embeddings" if is_vocabulary else ""


def _half(names: Mapping[tuple[str, Part], TensorName], module: str, part: Part) -> TensorName:
    if (found := names.get((module, part))) is not None:
        return found
    other = names[module, Part.UP if part is Part.DOWN else Part.DOWN]
    raise AdapterError(f"{other.full}: got no {part.value} for {other.saved_module}, expected both factors")


def _shapes(name: TensorName, layer: Any, rank: int, vocabulary: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the factors in the file."""
    if isinstance(layer, torch.nn.Linear):
        outputs, inputs = layer.weight.shape
        return (rank, inputs), (vocabulary if name.module == HEAD else outputs, rank)
    if not isinstance(layer, torch.nn.Conv2d):
        kind = type(layer).__name__
        raise AdapterError(f"{name.full}: got a target of type {kind}, expected a linear layer or a convolution")
    if layer.groups > 1:
        # peft's factors do not have the groups of the layer: their product is a convolution of all channels.
        raise AdapterError(f"{name.full}: got a depthwise convolution as target, which is not supported")
    outputs, inputs, height, width = layer.weight.shape
    return (rank, inputs, height, width), (outputs, rank, 1, 1)
