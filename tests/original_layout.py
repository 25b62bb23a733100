"""Checkpoints in the original layout, made from transformers' own model, which is what their answers are held against.

The names are written down here once more, from the other side: what the loader makes of them has to be what they came
from.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AddedToken,
    AutoImageProcessor,
    BartTokenizerFast,
    Florence2Config,
    Florence2ForConditionalGeneration,
    GenerationConfig,
)

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
    """Transformers' model of the size that an original `config.json` says, with random weights."""
    vision, text = config["vision_config"], config["text_config"]
    alike = ("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads", "num_groups")
    model_config = Florence2Config(
        vision_config={
            "model_type": "florence_vision",
            **{field: vision[field] for field in (*alike, "window_size", "projection_dim")},
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


def original_tensors(model: Any) -> dict[str, Tensor]:
    """The model's weights as the original code saves them: tied ones once."""
    tensors = {_original_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["image_projection"] = tensors["image_projection"].t().contiguous()
    vocabulary = model.config.text_config.vocab_size
    tensors["language_model.final_logits_bias"] = torch.zeros(1, vocabulary)
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"):
        tensors.pop(f"language_model.{name}", None)
    if model.config.tie_word_embeddings:
        tensors.pop("language_model.lm_head.weight")
    return tensors


def _original_name(name: str) -> str:
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


def save_original(
    model: Any, config: Mapping[str, Any], processor_files: Path, folder: Path, own_tokens: tuple[AddedToken, ...] = ()
) -> None:
    """A folder as the original code would save the model, with the processor's files of another checkpoint.

    Args:
        model: transformers' model.
        config: the original `config.json`.
        processor_files: the folder of the checkpoint whose tokenizer and preprocessor are taken.
        folder: where to; made.
        own_tokens: a fine-tune's own, saved with its tokenizer as the original processor saves it.
    """
    folder.mkdir()
    for name in PROCESSOR_FILES:
        shutil.copy(processor_files / name, folder)
    if own_tokens:
        fine_tuned_tokenizer(processor_files, own_tokens).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(original_tensors(model), folder / "model.safetensors", {"format": "pt"})


def fine_tuned_tokenizer(processor_files: Path, own_tokens: tuple[AddedToken, ...] = ()) -> BartTokenizerFast:
    """BART's tokenizer with what the original processor adds, and a fine-tune's own tokens after these."""
    tokenizer = BartTokenizerFast.from_pretrained(processor_files)
    tokenizer.add_tokens(OFFICIAL_TOKENS, special_tokens=True)
    tokenizer.add_tokens(list(own_tokens))
    return tokenizer


def generated(model: Any, folder: Path, tokenizer: Any, picture: Path, sentence: str, **options: Any) -> list[int]:
    """What transformers' `generate()` answers; the features are put before the prompt, as the original code does."""
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(PIL.Image.open(picture), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = model.get_image_features(pixels).pooler_output
        prompt = model.get_input_embeddings()(tokenizer(sentence, return_tensors="pt")["input_ids"])
        encoder = model.model.language_model.encoder
        encoded = encoder(inputs_embeds=torch.cat([features, prompt], dim=1), return_dict=True)
        tokens: list[int] = model.generate(encoder_outputs=encoded, **options)[0].tolist()
    return tokens
