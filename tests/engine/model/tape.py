"""A stand-in for CUDA graphs that needs no GPU, and reads and writes the same memory as a graph would."""

from collections.abc import Callable
from typing import Any

from florence2_server.engine.model.graphs import Recording
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their results depend on values, which the host does not know while a graph is recorded.
_UNRECORDABLE = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select")


def record(run: Callable[[Any], Tensor], inputs: Any) -> Recording[Any]:
    """Record the tensor operations of a call; a replay repeats these and runs no other code.

    Tensors that the host has replaced since then, such as an adapter's factors, are read as they were, and what the
    host computed is constant.

    Raises:
        RuntimeError: an operation needs values on the host.
    """
    with _Tape() as tape:
        output = run(inputs)
    return Recording(inputs, tape.replay, output)


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._calls: list[Callable[[], None]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator._schema.name in _UNRECORDABLE:
            raise RuntimeError(f"{operator} cannot be recorded: it needs values on the host")
        kwargs = kwargs or {}
        result = operator(*args, **kwargs)
        read = {_address(each) for each in _tensors((args, kwargs))}
        made = [(index, each) for index, each in enumerate(_tensors(result)) if _address(each) not in read]
        if made or operator._schema.is_mutable:  # views stay what they are
            self._calls.append(lambda: _repeat(operator, args, kwargs, made))
        return result

    def replay(self) -> None:
        for call in self._calls:
            call()


def _repeat(operator: Any, args: Any, kwargs: Any, made: list[tuple[int, Tensor]]) -> None:
    results = _tensors(operator(*args, **kwargs))
    for index, tensor in made:
        tensor.copy_(results[index])


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
