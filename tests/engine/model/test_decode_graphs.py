"""Padding a step to the sizes of recordings changes no answer. What records is a stand-in: a graph needs a GPU."""

import dataclasses

import pytest
import torch
from florence2_engine.cuda_graphs import Recording
from florence2_engine.decode_graphs import DecodeGraphs
from florence2_engine.decoder import Decoder, Step, mask
from florence2_engine.kv_cache import KeyValueCache
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
        cache.own.normal_()
        decoder.store_encoder_output(torch.randn(SLOTS, 150, WIDTH), 0, [150, 20, 9, 70, 33])
    return decoder


def step_of(rows_of_slots: list[list[int]], lengths: list[int], positions: list[int]) -> Step:
    beams = max(map(len, rows_of_slots))
    padded = [rows + [rows[0]] * (beams - len(rows)) for rows in rows_of_slots]
    places = {row: slot * beams + beam for slot, rows in enumerate(rows_of_slots) for beam, row in enumerate(rows)}
    return Step(
        token_ids=torch.arange(len(positions)) + 3,
        positions=torch.tensor(positions),
        rows_of_slots=torch.tensor(padded),
        places=torch.tensor([places[row] for row in range(len(positions))]),
        cross_mask=mask(torch.tensor(lengths), max(lengths), torch.float32),
        own_length=max(positions) + 1,
    )


STEPS = [
    step_of([[0]], [150], [0]),
    step_of([[0]], [150], [159]),
    step_of([[0], [1], [2]], [150, 20, 9], [5, 70, 0]),
    step_of([[0, 2, 4], [1], [3, 5]], [150, 20, 9], [5, 70, 5, 12, 5, 12]),
    step_of([[0], [1], [2], [3], [4]], [150, 20, 9, 70, 33], [5, 70, 0, 3, 4]),
]


def record(run, step: Step) -> Recording:
    """Like a graph: fixed inputs, a fixed output, and nothing else is looked at."""
    inputs = Step(**{field.name: getattr(step, field.name) for field in dataclasses.fields(step)})
    logits = run(inputs)
    return Recording(inputs, lambda: logits.copy_(run(inputs)), logits)


@torch.inference_mode()
def test_padded_steps_give_the_same_logits(decoder):
    recorded = []

    def counting(run, step):
        recorded.append(step)
        return record(run, step)

    graphs = DecodeGraphs(decoder.step, SLOTS, ROWS, POSITIONS, counting)
    for step in STEPS * 2:
        expected = decoder.step(step)
        assert torch.allclose(graphs(step), expected, atol=1e-5)
    assert len(recorded) == 5
    assert all(len(step.token_ids) <= ROWS and len(step.rows_of_slots) <= SLOTS for step in recorded)


@torch.inference_mode()
def test_steps_over_the_same_slots_give_the_same_logits(decoder):
    graphs = DecodeGraphs(decoder.step, SLOTS, ROWS, POSITIONS, record)
    first, other = step_of([[0], [1, 2], [3]], [150, 20, 9], [5, 9, 9, 3]), step_of([[0], [1]], [150, 20], [7, 2])
    for step in (first, later(first), other, later(first), later(later(first)), first):
        expected = decoder.step(step)
        assert torch.allclose(graphs(step), expected, atol=1e-5)


def later(step: Step) -> Step:
    """The next step of the same requests: the tensors that say which rows are whose are the same ones."""
    return dataclasses.replace(
        step, token_ids=(step.token_ids + 11) % VOCABULARY, positions=step.positions + 1, own_length=step.own_length + 1
    )


@torch.inference_mode()
def test_steps_of_one_size_share_a_recording(decoder):
    recorded = []
    graphs = DecodeGraphs(
        decoder.step, SLOTS, ROWS, POSITIONS, lambda run, step: recorded.append(1) or record(run, step)
    )
    for position in range(60):
        graphs(step_of([[0], [1], [2]], [150, 20, 9], [position, 3, 4]))
    assert len(recorded) == 1


@torch.inference_mode()
def test_where_nothing_can_be_recorded_steps_run_plainly(decoder, caplog):
    def fail(_run, _step):
        raise RuntimeError("no graphs here")

    graphs = DecodeGraphs(decoder.step, SLOTS, ROWS, POSITIONS, fail)
    for step in STEPS:
        assert torch.equal(graphs(step), decoder.step(step))
    assert caplog.text.count("no graphs here") == 1
