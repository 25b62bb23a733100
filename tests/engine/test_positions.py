"""The number of positions in use, and their memory."""

import pytest
import torch
from florence2.errors import InvalidArgumentError
from florence2.options import Limit
from florence2_server.engine.completion import FinishReason
from florence2_server.engine.errors import CheckpointError
from florence2_server.engine.limits import prompt_limit
from florence2_server.engine.model.kv_cache import KeyValueCache

from tests.conftest import EXAMPLE_SCENE
from tests.engine.served import Served
from tests.engine.test_parity import assert_parity
from tests.random_checkpoint import save_random_checkpoint
from tests.reference import Reference

SCENE = EXAMPLE_SCENE.read_bytes()
LONGER = 1100


@pytest.fixture(scope="module")
def long_checkpoint(real_processor_folder, tmp_path_factory):
    """Random weights with 4,096 positions."""
    folder = tmp_path_factory.mktemp("long_checkpoint")
    save_random_checkpoint(real_processor_folder, folder, positions=4096)
    return folder


@pytest.fixture(scope="module")
def long_reference(long_checkpoint):
    return Reference(long_checkpoint)


@pytest.mark.parametrize(("positions", "gigabytes"), [(1024, 3.22), (4096, 12.88)])
def test_the_cache_of_florence_2_large(figure, positions, gigabytes):
    """16 slots of three beams in bfloat16, with the 12 layers and 16 heads of 64 of `microsoft/Florence-2-large`."""
    meta, half = torch.device("meta"), torch.bfloat16
    cache = KeyValueCache(
        layers=12, slots=16, rows=48, heads=16, positions=positions, head_width=64, device=meta, dtype=half
    )
    figure(f"bytes of the key-value cache at large size: {cache}", cache.size_in_bytes)
    assert cache.size_in_bytes == 12 * 2 * (48 + 16) * 16 * positions * 64 * 2
    assert cache.size_in_bytes / 1e9 == pytest.approx(gigabytes, abs=0.01)


def test_a_completion_of_more_than_1024_tokens_equals_generate(long_checkpoint, long_reference):
    longer = {"num_beams": 1, "min_new_tokens": LONGER, "max_new_tokens": LONGER, "no_repeat_ngram_size": 0}
    case = long_reference.case(SCENE, {"caption": {}}, longer)
    served = Served(long_checkpoint, slots=2, positions=4096)
    try:
        completion = served.complete(case)
    finally:
        served.engine.close()
    assert len(completion.token_ids) == LONGER + 1
    assert len(set(completion.token_ids[1025:])) > 10, "the text does not degenerate beyond 1,024 tokens"
    assert_parity([case], [completion])


def test_by_default_a_checkpoint_of_4096_positions_takes_the_memory_of_one_of_1024(
    long_checkpoint, random_checkpoint, caplog
):
    caplog.set_level("INFO", "florence2_server.engine.model.runner")
    for folder in (random_checkpoint, long_checkpoint):
        served = Served(folder)
        served.engine.close()
    lines = [record.getMessage() for record in caplog.records if "key-value cache" in record.getMessage()]
    assert (
        lines
        == ["key-value cache: 2 layers x 4 heads x 8 x 1024 positions x (48 rows + 16 slots), torch.float32: 34 MB"] * 2
    )


def test_the_setting_limits_completions_and_prompts(long_checkpoint, long_reference):
    served = Served(long_checkpoint, positions=64)
    endless = {"num_beams": 1, "min_new_tokens": 64, "no_repeat_ngram_size": 0}
    case = long_reference.case(SCENE, {"caption": {}}, {**endless, "max_new_tokens": 64})
    try:
        completion = served.run_task(SCENE, {"caption": {}}, endless)
        with pytest.raises(InvalidArgumentError, match=r"got 65, expected 1 to 64 \(FLORENCE2_POSITIONS\)"):
            served.run_task(SCENE, {"caption": {}}, {"max_new_tokens": 65})
        with pytest.raises(InvalidArgumentError, match=r"at most 47 tokens .*\(FLORENCE2_POSITIONS\)"):
            served.run_task(SCENE, {"free_prompt": {"text": "word " * 46}}, {})
        longest_prompt = served.run_task(SCENE, {"free_prompt": {"text": "word " * 44}}, {"max_new_tokens": 3})
    finally:
        served.engine.close()
    assert completion.finish_reason is FinishReason.LENGTH
    assert_parity([case], [completion])
    assert longest_prompt.token_ids


def test_the_checkpoints_positions_are_named_as_the_cause_of_a_limit(random_checkpoint):
    served = Served(random_checkpoint, positions=4096)
    try:
        with pytest.raises(InvalidArgumentError, match=r"got 1025, expected 1 to 1024 \(the checkpoint's positions\)"):
            served.run_task(SCENE, {"caption": {}}, {"max_new_tokens": 1025})
    finally:
        served.engine.close()


def test_a_setting_without_room_for_a_prompt_is_rejected_at_load_time(random_checkpoint):
    with pytest.raises(
        CheckpointError, match=r": FLORENCE2_POSITIONS: got 19, expected at least 20, 17 of them for an"
    ):
        Served(random_checkpoint, positions=19)
    assert prompt_limit(Limit(20, "FLORENCE2_POSITIONS"), 17) == Limit(3, "FLORENCE2_POSITIONS")
