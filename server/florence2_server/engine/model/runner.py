"""A model on a device, driven by three calls: encode images, prefill, decode step."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import AdapterTensors
from florence2_server.engine.model.decode_batch import DecodeBatch, attention_mask, decode_graphs
from florence2_server.engine.model.decoder import Decoder
from florence2_server.engine.model.graphs import CudaRecorder, Recorder
from florence2_server.engine.model.kv_cache import KeyValueCache
from florence2_server.engine.model.layers import Layers
from florence2_server.engine.model.normalization import Normalization
from florence2_server.engine.model.text_encoder import TextEncoder
from florence2_server.engine.model.transfer import to_device
from florence2_server.engine.model.vision import VisionTower, vision_graphs
from florence2_server.engine.model.vocabulary import TokenEmbeddings

_logger = logging.getLogger(__name__)


class Runner:
    """A model on a device, with its key-value cache.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode. The weights that are copied are freed: only
            their shapes remain.
        normalization: applied to pixels before the vision tower.
        slots: the most generations in the decode batch.
        rows: the most beams in the decode batch.
        positions: the most positions of a generation in the encoder (including its image) or in the decoder; at most
            the model's.
        record: records image encoding and decode steps. By default they are recorded on a GPU, as CUDA graphs.
    """

    def __init__(
        self,
        model: Any,
        normalization: Normalization,
        slots: int,
        rows: int,
        positions: int,
        record: Recorder | None = None,
    ) -> None:
        self._model = model
        self._normalization = normalization
        self._device = model.device
        self._layers = Layers(model)
        self._embed_tokens = TokenEmbeddings(model.get_input_embeddings())
        self._text_encoder = TextEncoder(model, self._layers)
        self._cache = KeyValueCache.of(model, slots, rows, positions, model.device)
        _logger.info("key-value cache: %s", self._cache)
        language_model = model.model.language_model
        with torch.inference_mode():
            self._decoder = Decoder(language_model.decoder, model.lm_head, self._cache, self._layers)
        for module in self._layers.copied:
            module.to("meta")
        self._tower = VisionTower(model, self._layers)
        self._encode: Callable[[Tensor], Tensor] = self._tower
        if record is None and self._device.type == "cuda":
            record = CudaRecorder(self._device)
        if record is not None:
            self._encode = vision_graphs(self._encode, record)
        self._record_decode: Callable[[Callable[[DecodeBatch], Tensor]], Callable[[DecodeBatch], Tensor]] | None = None
        if record is not None:
            self._record_decode = partial(decode_graphs, slots=slots, rows=rows, positions=positions, record=record)
        self._decode = self._recorded_decode()
        self._decode_adapted = self._recorded_decode()
        self._loaded: set[int] = set()
        self._slots: _Slots | None = None

    @torch.inference_mode()
    def load_adapter(self, adapter: int, tensors: AdapterTensors) -> None:
        """Make an adapter available.

        Args:
            adapter: its index, which no loaded adapter has; at least 0.
            tensors: what it changes, on the device.

        Raises:
            KeyError: it targets a layer that the model does not have.
        """
        self._loaded.add(adapter)
        try:
            for name, factors in tensors.factors.items():
                self._layers.put(adapter, name, factors)
        except Exception:  # there may also be too little memory
            self.unload_adapter(adapter)
            raise
        if tensors.input_rows is not None:
            for embeddings in (self._embed_tokens, self._decoder.embed_tokens):
                embeddings.rows[adapter] = tensors.input_rows
        if tensors.output_rows is not None:
            self._decoder.output.rows[adapter] = tensors.output_rows
        self._decoder.output.vocabularies[adapter] = tensors.vocabulary
        self._decode_adapted = self._recorded_decode()  # recordings read the factors at their former addresses

    @torch.inference_mode()
    def unload_adapter(self, adapter: int) -> None:
        """Free an adapter that no generation uses."""
        self._loaded.discard(adapter)
        self._layers.remove(adapter)
        output = self._decoder.output
        for table in (self._embed_tokens.rows, self._decoder.embed_tokens.rows, output.rows, output.vocabularies):
            table.pop(adapter, None)
        self._decode_adapted = self._recorded_decode()

    def _recorded_decode(self) -> Callable[[DecodeBatch], Tensor]:
        run = self._decoder.decode_step
        return run if self._record_decode is None else self._record_decode(run)

    @torch.inference_mode()
    def encode_images(self, pixels: Sequence[Tensor], adapter: int = BASE) -> list[Tensor]:
        """Compute the embeddings of images.

        Args:
            pixels: (3, height, width) 8-bit each, all of one size.
            adapter: of all of them.

        Returns:
            (image tokens, d_model) each.
        """
        batch = torch.stack(list(pixels)).to(self._device)
        # Each gets memory of its own, so that dropping one frees it, whatever happens to the others of the batch.
        normalized = self._normalization(batch)
        encoded = self._encode(normalized) if adapter == BASE else self._tower(normalized, adapter)
        return [embedding.clone() for embedding in encoded]

    @torch.inference_mode()
    def prefill(
        self,
        first_slot: int,
        embeddings: Sequence[Tensor],
        prompts: Sequence[list[int]],
        adapters: Sequence[int] | None = None,
    ) -> None:
        """Run the text encoder over images and prompts, and fill new slots with what their decode steps need.

        Args:
            first_slot: the first of the new slots; the others follow it.
            embeddings: (image tokens, d_model) for each slot.
            prompts: token ids for each slot.
            adapters: of each slot, or BASE; None if no slot has one.
        """
        inputs = [
            torch.cat([embedding, self._embed_tokens.of_prompt(to_device(prompt, self._device), adapter)])
            for embedding, prompt, adapter in zip(embeddings, prompts, adapters or [BASE] * len(prompts), strict=True)
        ]
        lengths = [len(each) for each in inputs]
        encoded = self._text_encoder(pad_sequence(inputs, batch_first=True), lengths, adapters)
        self._decoder.store_cross_attention(encoded, first_slot, lengths, adapters)
        self._slots = None

    @torch.inference_mode()
    def decode_step(
        self,
        token_ids: list[int],
        positions: list[int],
        rows_of_slots: list[list[int]],
        adapters: list[int] | None = None,
    ) -> Tensor:
        """Feed each row one token.

        Args:
            token_ids: one for each row.
            positions: of those tokens.
            rows_of_slots: the rows of each slot's beams.
            adapters: of each slot, or BASE; None if no slot has one.

        Returns:
            (rows, vocabulary) float32: the logits of each row's next token; with adapters that add tokens, -inf for
            these in the rows of others.
        """
        if self._slots is None or self._slots.rows_of_slots != rows_of_slots or self._slots.adapters != adapters:
            lengths = self._cache.encoder_lengths(len(rows_of_slots))
            self._slots = _Slots(rows_of_slots, lengths, adapters, self._device, self._cache.cross_attention.dtype)
        slots = self._slots
        self._cache.extend_rows(positions)
        tokens, token_positions = to_device([token_ids, positions], self._device)
        batch = DecodeBatch(
            token_ids=tokens,
            positions=token_positions,
            rows_of_slots=slots.padded,
            beam_indices=slots.beam_indices,
            cross_attention_mask=slots.cross_attention_mask,
            self_attention_length=max(positions) + 1,
            adapters=slots.adapters_of_rows,
            # A recording serves batches with any of the loaded adapters.
            active_adapters=frozenset(self._loaded if self._record_decode else adapters or ()) - {BASE},
        )
        return self._decode(batch) if slots.adapters_of_rows is None else self._decode_adapted(batch)

    @torch.inference_mode()
    def move_slot(self, source: int, target: int) -> None:
        """Move the content of slot `source` to slot `target`."""
        self._cache.move_slot(source, target)
        self._slots = None

    @torch.inference_mode()
    def copy_row(self, source: int, target: int, first: int, end: int) -> None:
        """Copy positions `first` to `end` (exclusive) of row `source` to row `target`."""
        self._cache.copy_row(source, target, first, end)


class _Slots:
    """The part of a decode batch that stays the same until a generation starts or ends."""

    def __init__(
        self,
        rows_of_slots: list[list[int]],
        lengths: list[int],
        adapters: list[int] | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.rows_of_slots = [list(rows) for rows in rows_of_slots]
        self.adapters = adapters
        self.adapters_of_rows = None if adapters is None else _adapters_of_rows(rows_of_slots, adapters, device)
        beams = max(map(len, rows_of_slots))
        padded = [rows + [rows[0]] * (beams - len(rows)) for rows in rows_of_slots]
        beam_indices = [0] * sum(map(len, rows_of_slots))
        for slot, rows in enumerate(rows_of_slots):
            for beam, row in enumerate(rows):
                beam_indices[row] = slot * beams + beam
        self.padded = to_device(padded, device)
        self.beam_indices = to_device(beam_indices, device)
        self.cross_attention_mask = attention_mask(to_device(lengths, device), max(lengths), dtype)


def _adapters_of_rows(rows_of_slots: list[list[int]], adapters: list[int], device: torch.device) -> Tensor:
    of_rows = [BASE] * sum(map(len, rows_of_slots))
    for rows, adapter in zip(rows_of_slots, adapters, strict=True):
        for row in rows:
            of_rows[row] = adapter
    return to_device(of_rows, device)
