"""An adapter (LoRA) for the demo checkpoint, which has none."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.conftest import DEMO_CHECKPOINT

_RANK = 4
_MODULE = "base_model.model.model.language_model.decoder.layers.0.self_attn.q_proj"


def save_demo_adapter(folder: Path) -> None:
    """Save an adapter with small random weights, as peft does. It changes one layer of the decoder, and few answers.

    Args:
        folder: the folder to create.
    """
    width = json.loads((DEMO_CHECKPOINT / "config.json").read_text())["text_config"]["d_model"]
    generator = torch.Generator().manual_seed(1)
    factors = {
        f"{_MODULE}.lora_A.weight": torch.randn(_RANK, width, generator=generator) / width,
        f"{_MODULE}.lora_B.weight": torch.randn(width, _RANK, generator=generator) / width,
    }
    folder.mkdir()
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": _RANK, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(factors, folder / "adapter_model.safetensors")
