"""The three device calls: encode images, prefill, decode step."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from florence2_engine.cuda_graphs import CudaRecorder
from florence2_engine.decode_graphs import DecodeGraphs, DecodeStep
from florence2_engine.decoder import Decoder, Step, mask
from florence2_engine.kv_cache import KeyValueCache
from florence2_engine.normalisation import Normalisation
from florence2_engine.text_encoder import TextEncoder
from florence2_engine.transfer import to_device
from florence2_engine.vision import VisionTower
from florence2_engine.vision_graphs import VisionGraphs

_logger = logging.getLogger(__name__)


class Runner:
    """A model on a device, with caches.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode. Its decoder is let go of: ours has the weights.
        normalisation: what is done to pixels before the vision tower.
        slots: the most requests that decode at once.
        rows: the most beams, over all requests.
        positions: the most positions of a request in the encoder (including its image) or in the decoder; no more
            than the model has.
    """

    def __init__(self, model: Any, normalisation: Normalisation, slots: int, rows: int, positions: int) -> None:
        self._model = model
        self._normalisation = normalisation
        self._device = model.device
        language_model = model.model.language_model
        self._vision_tower: Callable[[Tensor], Tensor] = VisionTower(model)
        self._text_encoder = TextEncoder(model)
        self._cache = KeyValueCache.of(model, slots, rows, positions, model.device)
        _logger.info("key-value cache: %s", self._cache)
        with torch.inference_mode():
            self._decoder = Decoder(language_model.decoder, model.lm_head, self._cache)
        language_model.decoder = None
        self._step: DecodeStep = self._decoder.step
        if self._device.type == "cuda":
            record = CudaRecorder(self._device)
            self._vision_tower = VisionGraphs(self._vision_tower, record)
            self._step = DecodeGraphs(self._decoder.step, slots, rows, positions, record)
        self._slots: _Slots | None = None

    @torch.inference_mode()
    def encode_images(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """The embeddings of images.

        Args:
            pixels: (3, height, width) of 8 bits each, all of one size.

        Returns:
            (image tokens, d_model) each.
        """
        batch = torch.stack(list(pixels)).to(self._device)
        # Each in memory of its own, which is free again when the cache lets go of it, whatever its neighbours do.
        return [embedding.clone() for embedding in self._vision_tower(self._normalisation(batch))]

    @torch.inference_mode()
    def prefill(self, first_slot: int, embeddings: Sequence[Tensor], prompts: Sequence[list[int]]) -> None:
        """Run the text encoder over images and prompts, and make slots ready to decode.

        Args:
            first_slot: the slots are `first_slot` and those that follow.
            embeddings: (image tokens, d_model), one a slot.
            prompts: token ids, one list a slot.
        """
        embed = self._model.get_input_embeddings()
        inputs = [
            torch.cat([embedding, embed(to_device(prompt, self._device))])
            for embedding, prompt in zip(embeddings, prompts, strict=True)
        ]
        lengths = [len(each) for each in inputs]
        encoded = self._text_encoder(pad_sequence(inputs, batch_first=True), lengths)
        self._decoder.store_encoder_output(encoded, first_slot, lengths)
        self._slots = None

    @torch.inference_mode()
    def decode_step(self, token_ids: list[int], positions: list[int], rows_of_slots: list[list[int]]) -> Tensor:
        """Feed each row one token.

        Args:
            token_ids: one a row.
            positions: of those tokens, one a row.
            rows_of_slots: the rows of each slot's beams.

        Returns:
            (rows, vocabulary) float32: the logits of each row's next token.
        """
        if self._slots is None or self._slots.rows_of_slots != rows_of_slots:
            lengths = self._cache.encoder_lengths(len(rows_of_slots))
            self._slots = _Slots(rows_of_slots, lengths, self._device, self._cache.cross.dtype)
        tokens, where = to_device([token_ids, positions], self._device)
        slots = self._slots
        return self._step(
            Step(tokens, where, slots.padded, slots.places, slots.cross_mask, own_length=max(positions) + 1)
        )

    @torch.inference_mode()
    def move_slot(self, source: int, target: int) -> None:
        """Let slot `target` hold what slot `source` holds."""
        self._cache.move_slot(source, target)
        self._slots = None

    @torch.inference_mode()
    def copy_row(self, source: int, target: int, first: int, end: int) -> None:
        """Let row `target` have what row `source` has at positions from `first` to before `end`."""
        self._cache.copy_row(source, target, first, end)


class _Slots:
    """Tensors that say which rows belong to which slot; they change only when a request comes or goes."""

    def __init__(
        self, rows_of_slots: list[list[int]], lengths: list[int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.rows_of_slots = [list(rows) for rows in rows_of_slots]
        beams = max(map(len, rows_of_slots))
        padded = [rows + [rows[0]] * (beams - len(rows)) for rows in rows_of_slots]
        places = [0] * sum(map(len, rows_of_slots))
        for slot, rows in enumerate(rows_of_slots):
            for beam, row in enumerate(rows):
                places[row] = slot * beams + beam
        self.padded = to_device(padded, device)
        self.places = to_device(places, device)
        self.cross_mask = mask(to_device(lengths, device), max(lengths), dtype)
