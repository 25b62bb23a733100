"""Checkpoints with random weights: the real tokenizer, processor and text model size, without training."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor, GenerationConfig
from transformers.models.bart.modeling_bart import BartAttention

from benchmarks.harness.fingerprint import fingerprint

# The small vision tower of `mixed`: 112 pixels, strides 4 and 4, so 7 x 7 patches and their mean.
_MIXED_IMAGE_SIDE = 112
_MIXED_IMAGE_TOKENS = 50
_WEIGHTS_SEED = 7


class ConfigsMissingError(Exception):
    """The folder lacks the real configs or tokenizer."""


def make_checkpoint(name: str, real_configs: Path, cache: Path) -> Path:
    """The folder of a checkpoint, which is written unless an earlier run has left it.

    Args:
        name: `base`, Florence-2-base's full size; `mixed`, its text model behind a small vision tower.
        real_configs: folder with Florence-2-base's tokenizer, processor and configs.
        cache: folder that keeps checkpoints between runs.

    Raises:
        ConfigsMissingError: `real_configs` lacks one of the files.
    """
    for file in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json"):
        if not (real_configs / file).is_file():
            raise ConfigsMissingError(
                f"{real_configs / file} is missing: the benchmark needs the tokenizer, processor and configs of "
                "Florence-2-base (no weights); --configs names their folder"
            )
    folder = cache / f"checkpoint-{name}-{fingerprint(Path(__file__), real_configs / 'config.json')}"
    if not folder.is_dir():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _save(name, real_configs, unfinished)
        unfinished.rename(folder)
    return folder


def _save(name: str, real_configs: Path, folder: Path) -> None:
    config = Florence2Config.from_pretrained(real_configs)
    processor = Florence2Processor.from_pretrained(real_configs)
    if name == "mixed":
        _shrink_vision(config.vision_config)
        processor.image_processor.size = {"height": _MIXED_IMAGE_SIDE, "width": _MIXED_IMAGE_SIDE}
        processor.image_processor.image_seq_length = processor.num_image_tokens = _MIXED_IMAGE_TOKENS
    text_config: Any = config.text_config
    text_config.init_std = 0.1
    torch.manual_seed(_WEIGHTS_SEED)
    model = Florence2ForConditionalGeneration(config).eval()
    _let_answers_vary(model.model.language_model)
    model.generation_config = GenerationConfig.from_pretrained(real_configs)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _shrink_vision(vision: Any) -> None:
    vision.depths = [1, 1]
    vision.patch_size, vision.patch_stride, vision.patch_padding = [7, 3], [4, 4], [3, 1]
    vision.patch_prenorm = [False, True]
    vision.embed_dim = [32, 64]
    vision.num_heads = vision.num_groups = [2, 4]
    vision.window_size = 4


@torch.no_grad()
def _let_answers_vary(text_model: Any) -> None:
    """Keep random weights from generating the same token over and over.

    There are two causes: GELU's mean is positive, which adds the same vector to every position in every layer, and
    attention with large weights drowns out the last token. Without the first and with little of the second, each token
    is a random function of the last token, the position, the image and the prompt. Sharp attention in the encoder would
    also amplify rounding errors twentyfold.
    """
    for module in text_model.modules():
        if isinstance(module, BartAttention):
            module.out_proj.weight *= 0.05
            module.q_proj.weight *= 0.5
            module.k_proj.weight *= 0.5
    for layer in [*text_model.encoder.layers, *text_model.decoder.layers]:
        layer.fc2.weight -= layer.fc2.weight.mean(dim=1, keepdim=True)
