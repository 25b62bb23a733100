"""Writes checkpoint folders that `from_pretrained` of the real Florence-2 classes loads."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from training.demo.model import IMAGE_SIDE, IMAGE_TOKENS

TOKENIZER_CONFIG = {
    "add_prefix_space": False,
    "backend": "tokenizers",
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "errors": "replace",
    "extra_special_tokens": [],
    "image_token": "<image>",
    "mask_token": "<mask>",
    "model_max_length": 1024,
    "pad_token": "<pad>",
    "processor_class": "Florence2Processor",
    "sep_token": "</s>",
    "tokenizer_class": "RobertaTokenizer",
    "trim_offsets": True,
    "unk_token": "<unk>",
}
PROCESSOR_CONFIG = {
    "image_processor": {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": IMAGE_TOKENS,
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
    },
    "num_additional_image_tokens": 0,
    "post_processor_config": {
        "bboxes": {},
        "description_with_bboxes": {},
        "description_with_bboxes_or_polygons": {},
        "description_with_polygons": {},
        "ocr": {"AREA_THRESHOLD": 0.0, "PATTERN": None},
        "phrase_grounding": {"banned_grounding_tokens": []},
        "polygons": {},
        "pure_text": {},
    },
    "processor_class": "Florence2Processor",
}


def write_processor(tokenizer: Tokenizer, folder: Path) -> Florence2Processor:
    """Write the tokenizer and processor files to the folder, and load them back as users will."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in (("tokenizer_config", TOKENIZER_CONFIG), ("processor_config", PROCESSOR_CONFIG)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    return Florence2Processor.from_pretrained(folder)


def export_checkpoint(model: Florence2ForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the whole checkpoint in float16; each file appears in the folder complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".export-") as name:
        draft = Path(name)
        half: Any = Florence2ForConditionalGeneration(model.config)  # `to` has no usable type
        half = half.to(torch.float16)
        half.load_state_dict(model.state_dict())
        half.generation_config = model.generation_config
        half.save_pretrained(draft)
        write_processor(tokenizer, draft)
        for file in draft.iterdir():
            # safetensors makes its file readable only to its owner.
            file.chmod(0o644)
            file.replace(folder / file.name)
