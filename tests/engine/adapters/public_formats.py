"""Adapters as public tools write them: their options of peft, their folders, and what else they put there.

Options and files are those of the tools' own sources; peft writes the adapters themselves. The factors are random.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.engine.adapters import original_tree, peft_adapters
from tests.original_layout import fine_tuned_tokenizer

_MAESTRO_LAYERS = ["q_proj", "o_proj", "k_proj", "v_proj", "linear", "Conv2d", "lm_head", "fc2"]
_SWIFT_LAYERS = r"^(language_model(?=\.).*\.(fc1|out_proj|q_proj|fc2|v_proj|k_proj))$"
_UNSLOTH_LAYERS = (
    r"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)"
    r".*?(?:qkv|proj|q_proj|k_proj|v_proj|out_proj|fc1|fc2).*?)"
)
_OWN_CODE = "raise SystemExit('code in an adapter folder was run')\n"


@dataclass(frozen=True)
class Format:
    """A kind of adapter.

    Attributes:
        options: of peft's LoraConfig.
        inside: where the adapter is in the folder that the tool writes.
        config: fields of `adapter_config.json` that the tool changes after peft.
        files: text files next to the adapter.
        is_native: made on transformers' own classes; else on the original code.
        has_processor: the processor is saved in the same folder.
        save: options of `save_pretrained`.
        dtype: of the model that was trained.
    """

    options: Mapping[str, Any]
    inside: str = "."
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    is_native: bool = False
    has_processor: bool = False
    save: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32


_MAESTRO = {
    "r": 8,
    "lora_alpha": 8,
    "target_modules": _MAESTRO_LAYERS,
    "task_type": "CAUSAL_LM",
    "lora_dropout": 0.05,
    "bias": "none",
    "inference_mode": False,
    "use_rslora": True,
    "init_lora_weights": "gaussian",
    "revision": "refs/pr/20",
}
_ATTENTION = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
_HUB = {"base_model_name_or_path": "microsoft/Florence-2-base-ft"}
_SWIFT_FILES = {
    "additional_config.json": '{"lora_dtype": null, "lorap_lr_ratio": null, "lorap_emb_lr": 1e-06}',
    "args.json": '{"tuner_backend": "peft"}',
}
_REMOTE_CLASS = {
    "base_model_class": "Florence2ForConditionalGeneration",
    "parent_library": "transformers_modules.microsoft.Florence-2-base-ft.abc.modeling_florence2",
}
FORMATS = {
    "maestro": Format(_MAESTRO, "1/checkpoints/best", config=_HUB, has_processor=True),
    "maestro, later": Format(
        {
            "r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.05,
            "bias": "none",
            "target_modules": _MAESTRO_LAYERS,
            "task_type": "CAUSAL_LM",
        },
        "1/checkpoints/latest",
        config=_HUB,
    ),
    "in bfloat16": Format(_MAESTRO, config=_HUB, dtype=torch.bfloat16),
    "ms-swift": Format(
        {"r": 8, "lora_alpha": 32, "target_modules": _SWIFT_LAYERS, "task_type": "CAUSAL_LM", "modules_to_save": []},
        "v0-20250101-000000/checkpoint-500",
        config={"base_model_name_or_path": "/root/.cache/modelscope/hub/AI-ModelScope/Florence-2-base-ft"},
        files=_SWIFT_FILES,
    ),
    "vision attention": Format(
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["qkv", "proj", "k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"],
        },
        config={"auto_mapping": _REMOTE_CLASS},
    ),
    "unsloth": Format(
        {"r": 16, "lora_alpha": 16, "target_modules": _UNSLOTH_LAYERS},
        config={
            "base_model_name_or_path": "/models/florence",
            "auto_mapping": {
                "base_model_class": "Florence2ForConditionalGeneration",
                "parent_library": "transformers.models.florence2.modeling_florence2",
                "unsloth_fixed": True,
            },
        },
        is_native=True,
        has_processor=True,
    ),
    ".bin": Format(_ATTENTION, save={"safe_serialization": False}),
}


def write(format_: Format, base: Any, tiny: Path, run: Path) -> Path:
    """The folder of an adapter in what a tool writes.

    Args:
        format_: the kind.
        base: transformers' model.
        tiny: the checkpoint's folder, with its processor.
        run: the folder that the tool writes; to be created.
    """
    folder = run / format_.inside
    if format_.is_native:
        model = peft_adapters.make_adapter(base, **format_.options)
        original_tree.fill(model)
    else:
        model = original_tree.make_adapter(base, **format_.options)
    peft_adapters.save(model.to(format_.dtype), folder, **format_.save)
    peft_adapters.change(folder, **format_.config)
    if format_.has_processor:
        _save_processor(format_, tiny, folder)
    for name, text in format_.files.items():
        (folder / name).write_text(text)
    return folder


def load(format_: Format, base: Any, folder: Path) -> Any:
    """Transformers' model with the adapter, unmerged, as peft loads it."""
    if format_.is_native:
        return peft_adapters.reload(base, folder).get_base_model()
    return original_tree.load(base, folder)


def _save_processor(format_: Format, tiny: Path, folder: Path) -> None:
    own_tokens = ("<image>",) if format_.is_native else ()
    fine_tuned_tokenizer(tiny, own_tokens).save_pretrained(folder)
    shutil.copy(tiny / "preprocessor_config.json", folder)
    if not format_.is_native:
        (folder / "processing_florence2.py").write_text(_OWN_CODE)


# The fields that peft has written since a version.
_FIELDS_SINCE = {
    "0.14": {"eva_config", "exclude_modules", "lora_bias"},
    "0.15": {"corda_config", "trainable_token_indices"},
    "0.17": {"qalora_group_size", "use_qalora", "target_parameters"},
    "0.18": {"peft_version", "alora_invocation_tokens", "arrow_config", "ensure_weight_tying"},
}
_FIELDS_OF_0_10 = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode"),
    *("init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha"),
    *("lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r", "rank_pattern"),
    *("revision", "target_modules", "task_type", "use_dora", "use_rslora"),
}
OLDER_VERSIONS = ("0.10", *_FIELDS_SINCE)


def make_older(folder: Path, version: str) -> None:
    """Leave only those fields of `adapter_config.json` that an older version of peft writes."""
    newer = [each for each in _FIELDS_SINCE if OLDER_VERSIONS.index(each) <= OLDER_VERSIONS.index(version)]
    fields = _FIELDS_OF_0_10.union(*(_FIELDS_SINCE[each] for each in newer))
    config = peft_adapters.config_of(folder)
    assert fields <= config.keys()
    kept = {name: value for name, value in config.items() if name in fields}
    (folder / "adapter_config.json").write_text(json.dumps(kept))
