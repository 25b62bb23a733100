"""The layout of `microsoft/Florence-2-*` and of their fine-tunes, mapped to transformers' native layout.

Names of tensors, configuration fields and tokens come from the files and the remote code in these repositories
(modeling_florence2.py, configuration_florence2.py, processing_florence2.py). That code is never run.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from florence2_server.engine.errors import CheckpointError

_IMAGE_PROJECTION = "image_projection"
_FINAL_LOGITS_BIAS = "language_model.final_logits_bias"
_PROJECTOR = "model.multi_modal_projector"

# Applied to a tensor's name, in order and once each.
_RENAMINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^vision_tower\.convs\.(\d+)\.proj\.", r"model.vision_tower.convs.\1.conv."),
        (r"^vision_tower\.", "model.vision_tower."),
        (r"\.(conv[12])\.fn\.dw\.", r".\1."),
        (r"\.(?:window|channel)_attn\.norm\.", ".norm1."),
        (r"\.(window_attn|channel_attn)\.fn\.", r".\1."),
        (r"\.ffn\.norm\.", ".norm2."),
        (r"\.ffn\.fn\.net\.", ".ffn."),
        (rf"^{_IMAGE_PROJECTION}$", f"{_PROJECTOR}.image_projection.weight"),
        (r"^image_pos_embed\.", f"{_PROJECTOR}.image_position_embed."),
        (r"^(image_proj_norm|visual_temporal_embed)\.", rf"{_PROJECTOR}.\1."),
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.language_model."),
    )
)

# Defaults of configuration_florence2.py for fields that config.json omits.
_VISION_DEFAULTS: dict[str, Any] = {
    "patch_size": [7, 3, 3, 3],
    "patch_stride": [4, 2, 2, 2],
    "patch_padding": [3, 1, 1, 1],
    "patch_prenorm": [False, True, True, True],
    "dim_embed": [256, 512, 1024, 2048],
    "num_heads": [8, 16, 32, 64],
    "num_groups": [8, 16, 32, 64],
    "depths": [1, 1, 9, 1],
    "window_size": 12,
    "projection_dim": 1024,
}
_TEXT_DEFAULTS: dict[str, Any] = {
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "d_model": 1024,
    "scale_embedding": False,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_GENERATION_DEFAULTS: dict[str, Any] = {
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
# The only value that transformers' model supports; all published checkpoints have it.
_FEATURE_SOURCES = ["spatial_avg_pool", "temporal_avg_pool"]

ADDED_TOKENS = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{bin_}>" for bin_ in range(1000)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *(
        "<sep>",
        "<region_cap>",
        "</region_cap>",
        "<region_to_desciption>",
        "</region_to_desciption>",
    ),  # misspelled in the original
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
)
"""What processing_florence2.py adds to BART's tokenizer when it loads, in this order."""


def has_original_config(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` has the fields of the original configuration, whatever its model types are."""
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    return not vision.keys().isdisjoint({"dim_embed", "visual_temporal_embedding", "image_pos_embed"}) or (
        vision.get("model_type") == "davit" or text.get("model_type") == "florence2_language"
    )


def has_original_weights(weights: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have the names of the original code."""
    return any(name.startswith(("vision_tower.", "language_model.model.")) for name in weights)


def native_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the `Florence2Config` that is equivalent to an original `config.json`.

    Raises:
        CheckpointError: transformers' classes cannot build such a model.
    """
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    _require_known_parts(vision)
    copied = _completed(vision, _VISION_DEFAULTS)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return {
        "vision_config": {
            "model_type": "florence_vision",
            **{field: value for field, value in copied.items() if field != "dim_embed"},
            "embed_dim": copied["dim_embed"],
            "max_temporal_embeddings": (vision.get("visual_temporal_embedding") or {}).get(
                "max_temporal_embeddings", 100
            ),
            "max_position_embeddings": (vision.get("image_pos_embed") or {}).get("max_pos_embeddings", 50),
        },
        "text_config": {
            "model_type": "bart",
            **_completed(text, _TEXT_DEFAULTS),
        },
        "tie_word_embeddings": tied is not False,
    }


def _completed(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a default; null counts as missing."""
    return {field: default if given.get(field) is None else given[field] for field, default in defaults.items()}


def _require_known_parts(vision: Mapping[str, Any]) -> None:
    for field, known in (("visual_temporal_embedding", "COSINE"), ("image_pos_embed", "learned_abs_2d")):
        if (found := (vision.get(field) or {}).get("type") or known) != known:
            raise CheckpointError(f"config.json: vision_config.{field}.type: got {found!r}, expected {known!r}")
    if (found := vision.get("image_feature_source") or _FEATURE_SOURCES) != _FEATURE_SOURCES:
        raise CheckpointError(
            f"config.json: vision_config.image_feature_source: got {found!r}, expected {_FEATURE_SOURCES!r}"
        )


def native_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the names and shapes of transformers' model.

    Raises:
        CheckpointError: there is a nonzero logits bias, which transformers' model does not have.
    """
    native = {}
    for name, tensor in weights.items():
        if name == _FINAL_LOGITS_BIAS:
            if tensor.any():
                raise CheckpointError(f"{name} is not zero, which is not supported: answers would differ")
        elif name == _IMAGE_PROJECTION:  # applied as `x @ image_projection`: the transpose of a linear layer's weight
            native[_native_name(name)] = tensor.t().contiguous()
        else:
            native[_native_name(name)] = tensor
    return native


def native_module_name(name: str) -> str:
    """The name in transformers' model of a module of either layout, which need not exist."""
    return _native_name(f"{name}.").removesuffix(".")


def _native_name(name: str) -> str:
    for pattern, replacement in _RENAMINGS:
        name = pattern.sub(replacement, name)
    return name


def generation_config(config: Mapping[str, Any]) -> GenerationConfig:
    """The generation config that the original code uses: that of its language model, made from `text_config`.

    The original code does not read the `generation_config.json` next to it. The published one disables `early_stopping`
    and omits `no_repeat_ngram_size`, without which answers end in a loop of `<s>`.
    """
    text = config.get("text_config") or {}
    make: Any = GenerationConfig  # untyped
    known = make().to_dict().keys() - {"transformers_version"}
    given = {field: value for field, value in text.items() if field in known}  # including null, which disables a rule
    effective: GenerationConfig = make(**{**_GENERATION_DEFAULTS, **given})
    return effective
