"""Padding decode batches to recorded shapes changes no result. A stand-in records: CUDA graphs need a GPU."""

import dataclasses

import pytest
import torch
from florence2_server.engine.model.decode_batch import DecodeBatch, attention_mask, decode_graphs
from florence2_server.engine.model.decoder import Decoder
from florence2_server.engine.model.graphs import Recording
from florence2_server.engine.model.kv_cache import KeyValueCache
from transformers import BartConfig
from transformers.models.bart.modeling_bart import BartDecoder

SLOTS, ROWS, POSITIONS, WIDTH, VOCABULARY = 5, 12, 160, 16, 40


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    config = BartConfig(
        d_model=WIDTH,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        max_position_embeddings=POSITIONS,
        vocab_size=VOCABULARY,
        init_std=0.5,
    )
    sizes = {"layers": 2, "slots": SLOTS, "rows": ROWS, "heads": 2, "positions": POSITIONS, "head_width": WIDTH // 2}
    cache = KeyValueCache(**sizes, device=torch.device("cpu"), dtype=torch.float32)
    with torch.inference_mode():
        decoder = Decoder(BartDecoder(config).eval(), torch.nn.Linear(WIDTH, VOCABULARY, bias=False), cache)
        cache.self_attention.normal_()
        decoder.store_cross_attention(torch.randn(SLOTS, 150, WIDTH), 0, [150, 20, 9, 70, 33])
    return decoder


def batch_of(rows_of_slots: list[list[int]], lengths: list[int], positions: list[int]) -> DecodeBatch:
    beams = max(map(len, rows_of_slots))
    padded = [rows + [rows[0]] * (beams - len(rows)) for rows in rows_of_slots]
    indices = {row: slot * beams + beam for slot, rows in enumerate(rows_of_slots) for beam, row in enumerate(rows)}
    return DecodeBatch(
        token_ids=torch.arange(len(positions)) + 3,
        positions=torch.tensor(positions),
        rows_of_slots=torch.tensor(padded),
        beam_indices=torch.tensor([indices[row] for row in range(len(positions))]),
        cross_attention_mask=attention_mask(torch.tensor(lengths), max(lengths), torch.float32),
        self_attention_length=max(positions) + 1,
    )


BATCHES = [
    batch_of([[0]], [150], [0]),
    batch_of([[0]], [150], [159]),
    batch_of([[0], [1], [2]], [150, 20, 9], [5, 70, 0]),
    batch_of([[0, 2, 4], [1], [3, 5]], [150, 20, 9], [5, 70, 5, 12, 5, 12]),
    batch_of([[0], [1], [2], [3], [4]], [150, 20, 9, 70, 33], [5, 70, 0, 3, 4]),
]


def record(run, batch: DecodeBatch) -> Recording:
    """Like a graph: the inputs and the output are fixed, and nothing else is read."""
    inputs = dataclasses.replace(batch)
    logits = run(inputs)
    return Recording(inputs, lambda: logits.copy_(run(inputs)), logits)


@torch.inference_mode()
def test_padding_does_not_change_logits(decoder):
    recorded = []

    def counting(run, batch):
        recorded.append(batch)
        return record(run, batch)

    graphs = decode_graphs(decoder.decode_step, SLOTS, ROWS, POSITIONS, counting)
    for batch in BATCHES * 2:
        expected = decoder.decode_step(batch)
        assert torch.allclose(graphs(batch), expected, atol=1e-5)
    assert len(recorded) == 5
    assert all(len(batch.token_ids) <= ROWS and len(batch.rows_of_slots) <= SLOTS for batch in recorded)


@torch.inference_mode()
def test_steps_that_reuse_the_recorded_slots_give_the_same_logits(decoder):
    graphs = decode_graphs(decoder.decode_step, SLOTS, ROWS, POSITIONS, record)
    first, other = batch_of([[0], [1, 2], [3]], [150, 20, 9], [5, 9, 9, 3]), batch_of([[0], [1]], [150, 20], [7, 2])
    for batch in (first, later(first), other, later(first), later(later(first)), first):
        expected = decoder.decode_step(batch)
        assert torch.allclose(graphs(batch), expected, atol=1e-5)


def later(batch: DecodeBatch) -> DecodeBatch:
    """The next step of the same generations: the tensors that describe the slots are the same objects."""
    return dataclasses.replace(
        batch,
        token_ids=(batch.token_ids + 11) % VOCABULARY,
        positions=batch.positions + 1,
        self_attention_length=batch.self_attention_length + 1,
    )


@torch.inference_mode()
def test_steps_of_the_same_padded_shape_share_a_recording(decoder):
    recorded = []
    graphs = decode_graphs(
        decoder.decode_step, SLOTS, ROWS, POSITIONS, lambda run, batch: recorded.append(1) or record(run, batch)
    )
    for position in range(60):
        graphs(batch_of([[0], [1], [2]], [150, 20, 9], [position, 3, 4]))
    assert len(recorded) == 1


@torch.inference_mode()
def test_if_recording_fails_steps_run_without_and_one_warning_is_logged(decoder, caplog):
    def fail(_run, _batch):
        raise RuntimeError("no graphs here")

    graphs = decode_graphs(decoder.decode_step, SLOTS, ROWS, POSITIONS, fail)
    for batch in BATCHES:
        assert torch.equal(graphs(batch), decoder.decode_step(batch))
    assert caplog.text.count("no graphs here") == 1
