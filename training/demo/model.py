"""The demo checkpoint's architecture: the real Florence-2 classes with fewer and narrower layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from training.demo.tokenizer import LOCATIONS, token_id

IMAGE_SIDE = 128
IMAGE_TOKENS = 65
WIDTH = 160

GENERATION = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
}
SEARCH = {"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 3}


def build_config(tokenizer: Tokenizer) -> Florence2Config:
    """The configuration for a tokenizer: images of 128 x 128 pixels, 8 x 8 image tokens and their mean."""
    text = {
        "model_type": "bart",
        # As in the official checkpoints, slightly larger than the tokenizer's vocabulary.
        "vocab_size": 64 * math.ceil(tokenizer.get_vocab_size() / 64),
        "d_model": WIDTH,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 5,
        "decoder_attention_heads": 5,
        "encoder_ffn_dim": 4 * WIDTH,
        "decoder_ffn_dim": 4 * WIDTH,
        "max_position_embeddings": 1024,
        "dropout": 0.0,
        # BART's 0.02 is meant for a width of 1,024; at this width the model learns nothing with it.
        "init_std": 1 / math.sqrt(WIDTH),
        **{name: value for name, value in GENERATION.items() if not name.startswith("forced")},
    }
    vision = {
        "depths": [1, 1, 1],
        "patch_size": [7, 3, 3],
        "patch_stride": [4, 2, 2],
        "patch_padding": [3, 1, 1],
        "patch_prenorm": [False, True, True],
        "embed_dim": [48, 96, 160],
        "num_heads": [3, 3, 5],
        "num_groups": [3, 3, 5],
        "window_size": 8,
        "projection_dim": WIDTH,
        "drop_path_rate": 0.0,
    }
    return Florence2Config(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id(tokenizer, "<image>"),
        tie_word_embeddings=True,
    )


def build_model(tokenizer: Tokenizer, seed: int) -> Florence2ForConditionalGeneration:
    """A newly initialized model with the official generation settings."""
    torch.manual_seed(seed)
    model: Any = Florence2ForConditionalGeneration(build_config(tokenizer))
    model.generation_config = GenerationConfig(**GENERATION, **SEARCH)
    _initialize_vision(model.model)
    first = token_id(tokenizer, "<loc_0>")
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[first : first + LOCATIONS] = smooth_locations(LOCATIONS, WIDTH) / math.sqrt(WIDTH)
    initialized: Florence2ForConditionalGeneration = model
    return initialized


def smooth_locations(count: int, width: int) -> Tensor:
    """Embeddings (count, width) of unit variance in which neighboring bins are similar.

    Sinusoids with periods from 2 * count down to 40 bins encode a bin's neighborhood from the first step on; a common
    offset distinguishes locations from words.
    """
    periods = 2 * count * (40 / (2 * count)) ** torch.linspace(0, 1, width // 2)
    angles = 2 * math.pi * torch.arange(count)[:, None] / periods
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    return waves[:, torch.randperm(width)] + 0.7 * torch.randn(1, width)


def _initialize_vision(model: Any) -> None:
    """Xavier for linear layers and Kaiming for patch convolutions: the library's 0.02 suits far wider towers."""
    for module in [*model.vision_tower.modules(), *model.multi_modal_projector.modules()]:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)


def answer_logits(
    model: Florence2ForConditionalGeneration, image_embeddings: Tensor, prompt_ids: Tensor, label_ids: Tensor
) -> Tensor:
    """Logits (examples, answer tokens, vocabulary) of each answer's tokens, given the tokens before.

    `image_embeddings` is (examples, image tokens, width); the ids are padded with the model's pad id.
    """
    config: Any = model.config.text_config
    embeddings = torch.cat([image_embeddings, model.get_input_embeddings()(prompt_ids)], dim=1)
    mask = torch.cat([prompt_ids.new_ones(image_embeddings.shape[:2]), (prompt_ids != config.pad_token_id).long()], 1)
    start = label_ids.new_full((len(label_ids), 1), config.decoder_start_token_id)
    outputs = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=mask,
        decoder_input_ids=torch.cat([start, label_ids[:, :-1]], dim=1),
        use_cache=False,
    )
    logits: Tensor = model.lm_head(outputs.last_hidden_state)
    return logits
