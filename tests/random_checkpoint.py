"""A Florence-2 with random weights: small enough for tests, but with the real tokenizer and vocabulary."""

from pathlib import Path

import torch
from transformers import (
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
)

_IMAGE_SIDE = 64
_IMAGE_TOKENS = 17  # strides of 4 and 4 leave 4 x 4 patches, plus their mean


def save_random_checkpoint(real_processor: Path, folder: Path, positions: int = 1024) -> None:
    """Write a checkpoint to `folder`, with the processor of `real_processor` for smaller images."""
    torch.manual_seed(7)
    config = _config(real_processor)
    config.text_config.max_position_embeddings = positions
    model = Florence2ForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig.from_pretrained(real_processor)
    _favor_the_end_token(model)
    model.save_pretrained(folder)
    processor = Florence2Processor.from_pretrained(real_processor)
    processor.image_processor.size = {"height": _IMAGE_SIDE, "width": _IMAGE_SIDE}
    processor.image_processor.image_seq_length = processor.num_image_tokens = _IMAGE_TOKENS
    processor.save_pretrained(folder)


def _config(real_processor: Path) -> Florence2Config:
    config = Florence2Config.from_pretrained(real_processor)
    vision = config.vision_config
    vision.depths = [1, 1]
    vision.patch_size, vision.patch_stride, vision.patch_padding = [7, 3], [4, 4], [3, 1]
    vision.patch_prenorm = [False, True]
    vision.embed_dim = [16, 32]
    vision.num_heads = vision.num_groups = [2, 4]
    vision.window_size = 4
    vision.projection_dim = 32
    text = config.text_config
    text.d_model, text.encoder_layers, text.decoder_layers = 32, 2, 2
    text.encoder_attention_heads = text.decoder_attention_heads = 4
    text.encoder_ffn_dim = text.decoder_ffn_dim = 64
    text.init_std = 0.5  # wide, so that tokens differ from image to image and from step to step
    return config


def _favor_the_end_token(model: Florence2ForConditionalGeneration) -> None:
    """Give the end token the direction of tokens that these weights choose: they would hardly ever choose it."""
    embeddings = model.get_input_embeddings().weight.data
    embeddings[model.generation_config.eos_token_id] = embeddings[[12915, 49307, 49233]].mean(dim=0) * 1.2
