"""Conversion of an adapter's tensors to the dtype and device of the model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from florence2_server.engine.errors import AdapterError


@dataclass(frozen=True)
class Conversion:
    """Converts tensors of a file, which remain valid when the file changes.

    Attributes:
        dtype: of the model.
        device: of the model.
    """

    dtype: torch.dtype
    device: torch.device

    def __call__(self, name: str, tensor: Tensor, scaling: float = 1) -> Tensor:
        """The tensor, multiplied by `scaling` before it is rounded to the dtype.

        Raises:
            AdapterError: it has values that are not finite, before or after the conversion.
        """
        if not tensor.is_floating_point():
            raise AdapterError(f"{name}: got {_name(tensor.dtype)}, expected floating-point numbers")
        wide = tensor.to(self.device, torch.promote_types(self.dtype, torch.float32), copy=True)
        if not wide.isfinite().all():
            raise AdapterError(f"{name}: got NaN or infinity, expected finite numbers")
        converted = wide.mul_(scaling).to(self.dtype).contiguous()
        if not converted.isfinite().all():
            raise AdapterError(f"{name}: got values beyond the range of {_name(self.dtype)}, the dtype that is served")
        return converted


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
