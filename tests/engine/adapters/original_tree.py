"""What peft sees of a checkpoint in the original layout: the same layers, under the names of the original code.

The original code is not needed for that. peft chooses layers by their names and types, wraps them where they are, and
names the tensors in its files after them.
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.kernels.original_layout import original_name

peft = pytest.importorskip("peft", reason="peft, which makes the adapters, is not installed")
_LAYERS = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm)
_SUFFIX = ".weight"


class OriginalTree(nn.Module):
    """A copy of transformers' model, with its layers under the names that the original code gives them.

    Attributes:
        model: the copy, which runs with the layers that peft has wrapped once `update` was called.
        config: its config.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        copied = copy.deepcopy(model)
        self.__dict__["model"] = copied  # not a submodule: peft must not see the other names
        self.config = copied.config
        self._names: dict[str, str] = {}
        for name, layer in copied.named_modules(remove_duplicate=False):
            original = original_name(name + _SUFFIX)
            # The image projection is a parameter there, not a layer.
            if isinstance(layer, _LAYERS) and original.endswith(_SUFFIX):
                self._place(original.removesuffix(_SUFFIX), layer)
                self._names[original.removesuffix(_SUFFIX)] = name

    def update(self) -> Any:
        """The model, with the layers that the tree has now."""
        for original, name in self._names.items():
            self.model.set_submodule(name, self.get_submodule(original))
        return self.model.eval()

    def get_input_embeddings(self) -> Any:
        return self.get_submodule("language_model.model.shared")

    def get_output_embeddings(self) -> Any:
        return self.get_submodule("language_model.lm_head")

    def prepare_inputs_for_generation(self) -> None:
        """Exists because peft looks for it; the tree itself does not run."""

    def _place(self, name: str, layer: nn.Module) -> None:
        parent: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, layer)


def make_adapter(base: Any, **options: Any) -> Any:
    """A peft model of the tree of `base`, with random factors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(OriginalTree(base), peft.LoraConfig(**options))
    fill(model)
    return model


def fill(model: Any, seed: int = 1) -> None:
    """Give an adapter random factors."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)


def load(base: Any, folder: Path) -> Any:
    """Transformers' model with an adapter in the original layout, unmerged, as peft loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(OriginalTree(base), folder).get_base_model().update()
