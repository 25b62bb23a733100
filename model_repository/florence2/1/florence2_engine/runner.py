"""The three device calls: encode images, prefill, decode step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from florence2_engine.decoder import Decoder
from florence2_engine.kv_cache import KeyValueCache


class Runner:
    """A model on a device, with caches for `slots` rows.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode.
        slots: rows of the decode batch.
    """

    def __init__(self, model: Any, slots: int) -> None:
        self._model = model
        self._language_model = model.model.language_model
        config = self._language_model.config
        self._cache = KeyValueCache(
            layers=config.decoder_layers,
            slots=slots,
            heads=config.decoder_attention_heads,
            positions=config.max_position_embeddings,
            head_width=config.d_model // config.decoder_attention_heads,
            device=model.device,
            dtype=model.dtype,
        )
        self._decoder = Decoder(self._language_model.decoder, model.lm_head, self._cache)

    @torch.inference_mode()
    def encode_images(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """The embeddings of images.

        Args:
            pixels: (3, height, width) float32 each, all of one size.

        Returns:
            (image tokens, d_model) each.
        """
        batch = torch.stack(list(pixels)).to(self._model.device, self._model.dtype)
        embeddings: Tensor = self._model.get_image_features(batch).pooler_output
        return list(embeddings)

    @torch.inference_mode()
    def prefill(self, first_row: int, embeddings: Sequence[Tensor], prompts: Sequence[list[int]]) -> None:
        """Run the text encoder over images and prompts, and make rows ready to decode.

        Args:
            first_row: the rows are `first_row` and those that follow.
            embeddings: (image tokens, d_model), one a row.
            prompts: token ids, one list a row.
        """
        device = self._model.device
        embed = self._model.get_input_embeddings()
        rows = [
            torch.cat([embedding, embed(torch.tensor(prompt, device=device))])
            for embedding, prompt in zip(embeddings, prompts, strict=True)
        ]
        lengths = [len(row) for row in rows]
        mask = pad_sequence(
            [torch.ones(length, dtype=torch.long, device=device) for length in lengths], batch_first=True
        )
        encoded = self._language_model.encoder(
            inputs_embeds=pad_sequence(rows, batch_first=True), attention_mask=mask
        ).last_hidden_state
        self._decoder.store_encoder_output(encoded, first_row, lengths)

    @torch.inference_mode()
    def decode_step(self, token_ids: list[int], positions: list[int]) -> Tensor:
        """The logits (rows, vocabulary) after feeding each row `token_ids` at `positions`."""
        return self._decoder.step(token_ids, positions)

    @torch.inference_mode()
    def move_row(self, source: int, target: int, self_positions: int) -> None:
        """Let row `target` go on where row `source`, with `self_positions` tokens decoded, is."""
        self._cache.move(source, target, self_positions)
