"""Recorded decode steps with adapters, beside the same steps without recordings."""

from copy import deepcopy

import pytest
import torch
from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import AdapterTensors, Factors, TokenRows
from florence2_server.engine.model.normalization import Normalization
from florence2_server.engine.model.runner import Runner

from tests.engine.model.conftest import VOCABULARY
from tests.engine.model.tape import record

SLOTS, ROWS, POSITIONS = 5, 12, 160
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "lm_head")


@pytest.fixture
def recorded() -> list[tuple[int, bool]]:
    """For each recording the number of rows, and whether any may have an adapter."""
    return []


@pytest.fixture
def both(model, recorded) -> "Both":
    def counting(run, inputs):
        recorded.append((len(inputs.token_ids), inputs.adapters is not None))
        return record(run, inputs)

    return Both(_runner(model, None), _runner(model, counting))


def _runner(model, recorder) -> Runner:
    identity = Normalization(1 / 255, (0.0,) * 3, (1.0,) * 3)
    return Runner(deepcopy(model), identity, SLOTS, ROWS, POSITIONS, recorder)


class Both:
    """The same calls of a runner that does not record and of one that does."""

    def __init__(self, plain: Runner, recording: Runner) -> None:
        self.runners = (plain, recording)
        self._steps = 0

    def load(self, adapter: int, tensors: AdapterTensors) -> None:
        for runner in self.runners:
            runner.load_adapter(adapter, tensors)

    def unload(self, adapter: int) -> None:
        for runner in self.runners:
            runner.unload_adapter(adapter)

    def prefill(self, first_slot: int, adapters: list[int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed + first_slot)
        images = [torch.randn(6 + 9 * slot, 32, generator=generator) for slot in range(len(adapters))]
        prompts = [torch.randint(4, 90, (4,), generator=generator).tolist() for _ in adapters]
        for runner in self.runners:
            runner.prefill(first_slot, images, prompts, adapters)

    def step(self, beams: list[int], positions: list[int], adapters: list[int] | None) -> torch.Tensor:
        """A step of slots with these numbers of beams, at these positions; returns the recorded logits."""
        self._steps += 1
        rows = [list(range(sum(beams[:slot]), sum(beams[: slot + 1]))) for slot in range(len(beams))]
        tokens = [4 + (7 * row + 13 * self._steps) % 90 for row in range(sum(beams))]
        at = [position for position, count in zip(positions, beams, strict=True) for _ in range(count)]
        plain, recording = (runner.decode_step(tokens, at, rows, adapters) for runner in self.runners)
        # A recording also knows the tokens of adapters that are loaded but not in the batch.
        known = plain.shape[1]
        assert (recording[:, known:] == -torch.inf).all()
        torch.testing.assert_close(recording[:, :known], plain, atol=1e-4, rtol=1e-4)
        return recording.clone()


def _tensors(model, seed: int, targets: tuple[str, ...], rank: int, tokens: list[int] | None = None) -> AdapterTensors:
    """An adapter with random factors, and random rows of some tokens."""
    generator = torch.Generator().manual_seed(seed)
    factors = {
        name: Factors(
            torch.randn(rank, module.in_features, generator=generator) * 0.3,
            torch.randn(module.out_features, rank, generator=generator) * 0.3,
        )
        for name, module in model.named_modules()
        if name.endswith(targets) and "vision" not in name
    }
    assert factors, "the adapter has targets"
    rows = tokens and TokenRows(torch.tensor(tokens), torch.randn(len(tokens), 32, generator=generator))
    vocabulary = max([VOCABULARY, *(token + 1 for token in tokens or [])])
    return AdapterTensors(factors, rows or None, rows or None, vocabulary)


def test_padding_and_joining_generations_change_no_logits(model, both, recorded, caplog):
    both.load(0, _tensors(model, 0, TEXT, rank=4))
    both.load(1, _tensors(model, 1, ("fc2", "lm_head"), rank=2))
    both.load(2, _tensors(model, 2, ("q_proj", "v_proj"), rank=3, tokens=[7, 50, VOCABULARY, VOCABULARY + 1]))
    both.prefill(0, [0])
    both.step([1], [0], [0])
    both.prefill(1, [BASE, 1])
    for position in (0, 1, 69):
        both.step([1, 2, 3], [position + 1, position, position], [0, BASE, 1])
    both.prefill(3, [2, 0])
    for position in (2, 3):
        both.step([1, 2, 3, 2, 1], [position, 70, position, position - 2, 9], [0, BASE, 1, 2, 0])
    both.step([1, 2], [4, 71], [0, BASE])
    assert all(has_adapters for _, has_adapters in recorded)
    assert len(recorded) < 7, "steps share recordings"
    assert "cannot be recorded" not in caplog.text


def test_rows_have_the_adapters_that_their_slots_have_now(model, both, recorded):
    for index in range(3):
        both.load(index, _tensors(model, index, TEXT, rank=4))
    both.prefill(0, [0, 1, 2])
    both.step([1, 1, 1], [3, 3, 3], [0, BASE, BASE])  # the recording has to serve the others, too
    first = both.step([1, 1, 1], [3, 3, 3], [0, 1, 2])
    other = both.step([1, 1, 1], [3, 3, 3], [2, BASE, 1])
    assert not torch.allclose(first, other, atol=0.1)
    assert len(recorded) == 1


def test_adapters_that_are_loaded_and_unloaded_between_steps(model, both, recorded):
    both.load(0, _tensors(model, 0, TEXT, rank=4))
    both.prefill(0, [0])
    both.step([1], [0], [0])
    both.load(1, _tensors(model, 1, TEXT, rank=6, tokens=[9, VOCABULARY]))
    both.prefill(1, [1])
    both.step([1, 1], [1, 0], [0, 1])
    both.step([1], [2], [0])
    both.unload(0)  # the factors of 1 move
    both.step([1], [3], [1])
    both.load(0, _tensors(model, 2, TEXT, rank=4))  # other factors of the same shapes
    both.step([1], [4], [0])
    both.step([1, 1], [5, 2], [0, 1])
    assert [rows for rows, _ in recorded] == [1, 2, 1, 1, 1, 2], "each change of the adapters is recorded anew"


def test_a_batch_without_adapters_has_the_recordings_of_the_base(model, both, recorded):
    both.prefill(0, [BASE, BASE])
    before = both.step([1, 2], [0, 5], None)
    assert recorded == [(4, False)]
    for index in range(2):
        both.load(index, _tensors(model, index, TEXT, rank=4, tokens=[7, VOCABULARY + index]))
    both.unload(0)
    both._steps = 0  # the same tokens again
    assert torch.equal(both.step([1, 2], [0, 5], None), before)
    assert recorded == [(4, False)]
    mixed = both.step([1, 2], [0, 5], [1, BASE])
    assert recorded == [(4, False), (4, True)]
    both._steps = 1
    torch.testing.assert_close(both.step([1, 2], [0, 5], None)[1:], mixed[1:, :VOCABULARY], atol=1e-4, rtol=1e-4)
    assert len(recorded) == 2


def test_the_stand_in_reads_what_was_there_when_it_recorded():
    held = {"factor": torch.full((2, 2), 3.0)}
    taped = record(lambda inputs: (inputs @ held["factor"]).masked_fill_(inputs < 0, 0) + len(held), torch.ones(1, 2))
    held.update(factor=torch.zeros(2, 2), other=torch.zeros(1))
    taped.inputs.copy_(torch.tensor([[2.0, -1.0]]))
    taped.replay()
    assert taped.output.tolist() == [[4.0, 1.0]]


def test_the_stand_in_records_nothing_that_needs_values_on_the_host():
    with pytest.raises(RuntimeError, match="needs values on the host"):
        record(lambda inputs: inputs * inputs.sum().item(), torch.ones(2))
