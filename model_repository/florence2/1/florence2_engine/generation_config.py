"""A checkpoint's generation config -> the engine's defaults."""

import logging
from typing import Any

from transformers import GenerationConfig

from florence2_engine.config import EngineConfig
from florence2_engine.errors import CheckpointError
from florence2_engine.options import GenerationDefaults
from florence2_engine.request import EarlyStopping

_logger = logging.getLogger(__name__)


def generation_defaults(
    config: GenerationConfig, tokenizer: Any, max_positions: int, limits: EngineConfig
) -> GenerationDefaults:
    """What requests get that leave an option out, and what none may exceed.

    Args:
        config: the checkpoint's generation config; wrong token ids in it are repaired.
        tokenizer: the checkpoint's Hugging Face tokenizer.
        max_positions: positions of the decoder.
        limits: the server's settings.

    Raises:
        CheckpointError: the config asks for something that the engine does not do.
    """
    _repair_token_ids(config, tokenizer)
    longest_answer = min(limits.max_new_tokens or max_positions, max_positions)
    num_beams = config.num_beams or 1
    if num_beams > limits.max_beams:
        raise CheckpointError(f"max_beams: got {limits.max_beams}, expected at least the checkpoint's own {num_beams}")
    # max_length is not looked at: 20 is what the library writes where nobody chose one.
    return GenerationDefaults(
        max_positions=max_positions,
        longest_answer=longest_answer,
        most_beams=limits.max_beams,
        max_new_tokens=min(config.max_new_tokens or max_positions, longest_answer),
        min_new_tokens=max(config.min_new_tokens or 0, (config.min_length or 0) - 1),
        num_beams=num_beams,
        length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
        early_stopping=EarlyStopping(config.early_stopping or False),
        no_repeat_ngram_size=config.no_repeat_ngram_size or 0,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        forced_bos_token_id=config.forced_bos_token_id,
        forced_eos_token_id=config.forced_eos_token_id,
    )


def _repair_token_ids(config: GenerationConfig, tokenizer: Any) -> None:
    """Some fine-tunes ship other ids than their tokenizer has, and never end. The tokenizer knows best."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    right = {"bos_token_id": bos, "eos_token_id": eos, "decoder_start_token_id": eos}
    if config.forced_bos_token_id is not None:
        right["forced_bos_token_id"] = bos
    if config.forced_eos_token_id is not None:
        right["forced_eos_token_id"] = eos
    for name, token_id in right.items():
        if getattr(config, name) != token_id:
            _logger.warning("generation config: %s is %s, repaired to %s", name, getattr(config, name), token_id)
            setattr(config, name, token_id)
