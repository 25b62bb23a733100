"""Converts transformers' model to the original checkpoint layout.

The names are spelled out independently of the loader and in the other direction: the loader must map them back to the
names in transformers.
"""

import re
from typing import Any

import torch
from torch import Tensor


def original_config(model: Any) -> dict[str, Any]:
    """The `config.json` of the model and its generation config."""
    vision, text = model.config.vision_config, model.config.text_config
    generation = model.generation_config.to_diff_dict()
    alike = ("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads", "num_groups")
    return {
        "model_type": "florence2",
        "vision_config": {
            "model_type": "davit",
            **{field: getattr(vision, field) for field in (*alike, "window_size", "projection_dim")},
            "dim_embed": vision.embed_dim,
            "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": vision.max_temporal_embeddings},
            "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": vision.max_position_embeddings},
            "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        },
        "text_config": {**text.to_dict(), **generation, "model_type": "florence2_language"},
    }


def original_tensors(model: Any) -> dict[str, Tensor]:
    """The model's weights as the original code saves them, with tied ones saved once."""
    tensors = {original_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["image_projection"] = tensors["image_projection"].t().contiguous()
    vocabulary = model.config.text_config.vocab_size
    tensors["language_model.final_logits_bias"] = torch.zeros(1, vocabulary)
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"):
        tensors.pop(f"language_model.{name}", None)
    if model.config.tie_word_embeddings:
        tensors.pop("language_model.lm_head.weight")
    return tensors


def original_name(name: str) -> str:
    """The name in the original layout of a tensor of transformers' model."""
    if name == "lm_head.weight":
        return "language_model.lm_head.weight"
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.", 1)
    if name.startswith("model.multi_modal_projector."):
        name = name.removeprefix("model.multi_modal_projector.").removesuffix("image_projection.weight") or (
            "image_projection"
        )
        return name.replace("image_position_embed", "image_pos_embed")
    name = re.sub(r"^model\.vision_tower\.convs\.(\d+)\.conv\.", r"vision_tower.convs.\1.proj.", name)
    name = name.removeprefix("model.")
    for kind, attention in (("spatial", "window"), ("channel", "channel")):
        name = name.replace(f"{kind}_block.norm1.", f"{kind}_block.{attention}_attn.norm.")
        name = name.replace(f"{kind}_block.{attention}_attn.q", f"{kind}_block.{attention}_attn.fn.q")
        name = name.replace(f"{kind}_block.{attention}_attn.p", f"{kind}_block.{attention}_attn.fn.p")
    name = re.sub(r"\.(conv[12])\.(weight|bias)$", r".\1.fn.dw.\2", name)
    return name.replace(".norm2.", ".ffn.norm.").replace(".ffn.fc", ".ffn.fn.net.fc")
