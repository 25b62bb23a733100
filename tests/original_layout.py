"""Checkpoints in the original layout, made from transformers' own model, with which their answers are compared.

The names are spelled out here independently of the loader and in the other direction: the loader has to map them back
to transformers' names.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from safetensors.torch import save_file
from transformers import (
    AddedToken,
    AutoImageProcessor,
    BartTokenizerFast,
    Florence2Config,
    Florence2ForConditionalGeneration,
    GenerationConfig,
)

from benchmarks.kernels.original_layout import original_tensors

OFFICIAL_TOKENS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{place}>" for place in range(1000)]
    + ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"]
    + ["<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"]
    + ["<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"]
)
PROCESSOR_FILES = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json")
GENERATION_FIELDS = (
    "num_beams",
    "early_stopping",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
)


def random_model(config: Mapping[str, Any], vocabulary: int = 51289, *, tied: bool = True, seed: int = 3) -> Any:
    """Transformers' model of the size in an original `config.json`, with random weights."""
    vision, text = config["vision_config"], config["text_config"]
    same_names = ("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads", "num_groups")
    model_config = Florence2Config(
        vision_config={
            "model_type": "florence_vision",
            **{field: vision[field] for field in (*same_names, "window_size", "projection_dim")},
            "embed_dim": vision["dim_embed"],
            "max_temporal_embeddings": vision["visual_temporal_embedding"]["max_temporal_embeddings"],
            "max_position_embeddings": vision["image_pos_embed"]["max_pos_embeddings"],
        },
        text_config={
            **{name: value for name, value in text.items() if name not in GENERATION_FIELDS},
            "model_type": "bart",
            "vocab_size": vocabulary,
        },
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(model_config).eval()
    model.generation_config = GenerationConfig(**{name: text[name] for name in GENERATION_FIELDS})
    return model


def save_original(
    model: Any, config: Mapping[str, Any], processor_files: Path, folder: Path, own_tokens: tuple[AddedToken, ...] = ()
) -> None:
    """Save a model as the original code would, with the processor's files of another checkpoint.

    Args:
        model: transformers' model.
        config: the original `config.json`.
        processor_files: folder of the checkpoint with the tokenizer and the preprocessor.
        folder: the folder to create.
        own_tokens: tokens that a fine-tune added, saved with its tokenizer as the original processor saves them.
    """
    folder.mkdir()
    for name in PROCESSOR_FILES:
        shutil.copy(processor_files / name, folder)
    if own_tokens:
        fine_tuned_tokenizer(processor_files, own_tokens).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(original_tensors(model), folder / "model.safetensors", {"format": "pt"})


def fine_tuned_tokenizer(processor_files: Path, own_tokens: tuple[AddedToken, ...] = ()) -> BartTokenizerFast:
    """BART's tokenizer with the tokens that the original processor adds, followed by a fine-tune's own."""
    tokenizer = BartTokenizerFast.from_pretrained(processor_files)
    tokenizer.add_tokens(OFFICIAL_TOKENS, special_tokens=True)
    tokenizer.add_tokens(list(own_tokens))
    return tokenizer


def generated(model: Any, folder: Path, tokenizer: Any, picture: Path, sentence: str, **options: Any) -> list[int]:
    """The tokens of transformers' `generate()`, with image features before the prompt, as in the original code."""
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(PIL.Image.open(picture), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = model.get_image_features(pixels).pooler_output
        prompt = model.get_input_embeddings()(tokenizer(sentence, return_tensors="pt")["input_ids"])
        encoder = model.model.language_model.encoder
        encoded = encoder(inputs_embeds=torch.cat([features, prompt], dim=1), return_dict=True)
        tokens: list[int] = model.generate(encoder_outputs=encoded, **options)[0].tolist()
    return tokens
