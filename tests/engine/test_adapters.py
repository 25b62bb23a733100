"""Generations with adapters and without, in one decode batch, against the answers of the original code with peft."""

import gc
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from florence2.errors import InvalidArgumentError
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.engine.adapters.adapter_set import AdapterSource
from florence2_server.engine.errors import AdapterError
from florence2_server.engine.memory import resident_bytes
from safetensors.torch import load_file, save_file

from tests.engine.served import Served

NAMES = ("", "adapter_notebook", "adapter_small")
SECONDS = 60
LOADS = 60


@pytest.fixture(scope="module")
def served(tiny):
    with Served(tiny, slots=8, adapters={name: tiny / name for name in NAMES if name}) as served:
        yield served


@pytest.fixture(scope="module")
def images(tiny):
    return {path.name: path.read_bytes() for path in tiny.glob("*.png")}


def test_answers_are_those_of_the_original_code_whatever_else_is_in_the_batch(tiny, served, images):
    expected = [(name, each) for name in NAMES for each in json.loads((tiny / name / "expected.json").read_text())]
    assert len(expected) == 104
    mixed = [expected[(7 * index) % len(expected)] for index in range(len(expected))]  # 7 and 104 are coprime

    def tokens(case) -> list[int]:
        name, each = case
        return served.tokens(
            images[each["image"]], each["prompt"], name, num_beams=each["num_beams"], max_new_tokens=50
        )

    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(tokens, mixed))
    wrong = [
        (name, each["prompt"], each["num_beams"])
        for (name, each), ids in zip(mixed, found, strict=True)
        if ids != each["token_ids"]
    ]
    assert wrong == []
    statistics = served.engine.statistics
    assert statistics.decode_rows > 3 * statistics.decode_steps, "the batches were mixed"


def test_an_adapter_of_the_vision_tower_has_image_embeddings_of_its_own(tiny, images):
    with Served(tiny, adapters={name: tiny / name for name in NAMES if name}) as served:
        for name in NAMES:
            for _ in range(2):
                served.tokens(images["scene0.png"], "<CAPTION>", name, max_new_tokens=2)
        statistics = served.engine.embedding_statistics
    # adapter_small changes no layer of the vision tower, so that it shares the checkpoint's.
    assert (statistics.misses, statistics.hits) == (2, 4)


def test_an_unknown_name_is_rejected_with_the_known_ones(served, images):
    with pytest.raises(InvalidArgumentError) as raised:
        served.tokens(images["scene0.png"], "<CAPTION>", "notebook")
    assert str(raised.value) == "adapter: got 'notebook', expected one of adapter_notebook, adapter_small"


def test_without_adapters_the_message_says_so(random_checkpoint, image_file):
    with (
        Served(random_checkpoint) as served,
        pytest.raises(InvalidArgumentError, match="expected no adapter, because none are served"),
    ):
        served.tokens(image_file(), "<CAPTION>", "any")


def test_an_adapter_that_cannot_be_loaded_ends_the_start_in_one_line(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError, match=r"^adapter '.*empty': adapter_config.json is missing$"):
        Served(tiny, adapters={"empty": tmp_path / "empty"})


def test_a_generation_ends_with_its_adapter_although_that_is_removed_meanwhile(tiny, images):
    (expected,) = [
        each
        for each in json.loads((tiny / "adapter_notebook" / "expected.json").read_text())
        if (each["image"], each["prompt"], each["num_beams"]) == ("scene0.png", "<CAPTION>", 3)
    ]
    options = GenerationOptions(num_beams=3, max_new_tokens=50)
    request = TaskRequest(prompt="<CAPTION>", adapter="notebook", generation=options)
    with Served(tiny, adapters={"notebook": tiny / "adapter_notebook"}) as served:
        generation = served.submit(images["scene0.png"], request)
        adapters = served._preparation.adapters
        assert adapters.serve([AdapterSource("small", str(tiny / "adapter_small"), "")]) == {}
        with pytest.raises(InvalidArgumentError, match="one of small"):
            served.submit(images["scene0.png"], request)
        assert list(generation.future.result(SECONDS).token_ids) == expected["token_ids"]
        assert_loaded(served, {1})  # the removed one is freed
        assert adapters.serve([]) == {}
        assert_loaded(served, set())


def test_the_same_source_stays_and_another_version_is_read_anew(tiny):
    source = AdapterSource("small", str(tiny / "adapter_small"), "1")
    with Served(tiny) as served:
        adapters = served._preparation.adapters
        adapters.serve([source])
        (first,) = adapters.adapters
        adapters.serve([source])
        assert adapters.adapters == [first]
        adapters.serve([source._replace(version="2")])
        (second,) = adapters.adapters
        assert second.index > first.index
        assert_loaded(served, {second.index})


def test_a_changed_adapter_is_served_until_its_new_version_is_loaded(tiny, images):
    source = AdapterSource("changed", str(tiny / "adapter_small"), "1")
    with Served(tiny) as served:
        adapters = served._preparation.adapters
        adapters.serve([source])
        errors, stop = [], threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    served.tokens(images["scene0.png"], "<CAPTION>", "changed", max_new_tokens=1)
                except InvalidArgumentError as error:
                    errors.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        for version in ("2", "3", "4"):
            adapters.serve([source._replace(version=version)])
        stop.set()
        asking.join(SECONDS)
        assert errors == []


def test_a_changed_adapter_that_cannot_be_read_is_served_as_it_was(tiny):
    source = AdapterSource("changed", str(tiny / "adapter_small"), "1")
    with Served(tiny) as served:
        adapters = served._preparation.adapters
        adapters.serve([source])
        (former,) = adapters.adapters
        for _ in range(2):
            assert "changed" in adapters.serve([source._replace(folder="/nowhere")])
            assert adapters.adapters == [former]
        assert adapters.serve([source]) == {}, "what was wanted before is there"
        assert adapters.adapters == [former]
        adapters.serve([])
        assert_loaded(served, set())


def test_all_steps_of_a_plan_use_the_adapter_that_the_first_one_used(tiny):
    source = AdapterSource("a", str(tiny / "adapter_small"), "1")
    with Served(tiny) as served:
        adapters = served._preparation.adapters
        adapters.serve([source])
        old = adapters.acquire("a", "plan")
        adapters.release(old)  # between two steps
        adapters.serve([source._replace(version="2")])
        new = adapters.acquire("a", "other plan")
        assert new is adapters.acquire("a") is not old
        for plans in (["plan", "other plan"], ["plan"], ["plan"]):
            adapters.keep(plans)
            assert adapters.acquire("a", "plan") is old
            adapters.release(old)
        adapters.serve([])
        assert adapters.acquire("a", "plan") is old
        with pytest.raises(InvalidArgumentError):
            adapters.acquire("a", "other plan")
        for adapter in (old, new, new):
            adapters.release(adapter)
        assert_loaded(served, {old.index})
        adapters.keep(["plan"])
        adapters.keep([])
        assert_loaded(served, set())


def test_a_plan_that_began_after_its_caller_counted_plans_is_kept(tiny):
    with Served(tiny, adapters={"a": tiny / "adapter_small"}) as served:
        adapters = served._preparation.adapters
        adapters.release(adapter := adapters.acquire("a", "plan"))
        adapters.serve([])
        adapters.keep([])
        assert adapters.acquire("a", "plan") is adapter
        adapters.release(adapter)
        adapters.keep([])
        assert_loaded(served, set())


def test_an_adapter_that_no_one_foresaw_leaves_the_others_served(tiny):
    def read(folder: str):
        if folder == "odd":
            raise OSError("Input/output\nerror")
        return read_adapter(Path(folder))

    with Served(tiny) as served:
        adapters = served._preparation.adapters
        read_adapter, adapters._read = adapters._read, read
        sources = [AdapterSource("odd", "odd", ""), AdapterSource("a", str(tiny / "adapter_small"), "")]
        (error,) = adapters.serve(sources).values()
        assert str(error) == "adapter 'odd' cannot be loaded: OSError: Input/output error"
        assert [adapter.name for adapter in adapters.adapters] == ["a"]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_adapter_that_overflows_does_not_change_the_answers_of_others(tiny, images, tmp_path, num_beams):
    shutil.copytree(tiny / "adapter_notebook", tmp_path / "huge")
    weights = load_file(tmp_path / "huge" / "adapter_model.safetensors")
    save_file(
        {name: torch.full_like(weight, 3e37) for name, weight in weights.items()},
        tmp_path / "huge" / "adapter_model.safetensors",
    )
    image, options = images["scene0.png"], {"num_beams": num_beams, "max_new_tokens": 30}
    with Served(tiny, adapters={"huge": tmp_path / "huge", "small": tiny / "adapter_small"}, slots=8) as served:
        alone = [served.tokens(image, "<OD>", name, **options) for name in ("", "small")]
        with ThreadPoolExecutor(8) as callers:
            calls = [
                callers.submit(served.tokens, image, "<OD>", name, **options) for name in ("huge", "", "small") * 4
            ]
        found = [call.result() for call in calls]
        for index in range(0, len(found), 3):
            assert found[index + 1 : index + 3] == alone
            assert len(found[index]) > 1, "its own answer is nonsense"


def test_an_image_is_encoded_anew_for_a_new_version_of_an_adapter_of_the_vision_tower(tiny, images, tmp_path):
    shutil.copytree(tiny / "adapter_notebook", tmp_path / "stronger")
    path = tmp_path / "stronger" / "adapter_model.safetensors"
    save_file({name: 1.5 * weight for name, weight in load_file(path).items()}, path)
    image = images["scene0.png"]
    sources = [
        AdapterSource("changed", str(tiny / "adapter_notebook"), "1"),
        AdapterSource("stronger", str(path.parent), "1"),
    ]
    with Served(tiny) as served:
        adapters = served._preparation.adapters
        assert adapters.serve(sources) == {}
        before, stronger = (served.tokens(image, "<CAPTION>", source.name, max_new_tokens=20) for source in sources)
        assert before != stronger
        cached = served.engine.embedding_statistics.bytes
        adapters.serve([sources[1]._replace(name="changed", version="2"), sources[1]])
        assert served.tokens(image, "<CAPTION>", "changed", max_new_tokens=20) == stronger
        adapters.serve([sources[0]._replace(version="3"), sources[1]])
        assert served.tokens(image, "<CAPTION>", "changed", max_new_tokens=20) == before
        assert_loaded(served, {adapter.index for adapter in adapters.adapters})
        assert served.engine.embedding_statistics.bytes == cached, "those of former versions are freed"


def test_memory_stays_the_same_over_many_loads(tiny):
    sources = [AdapterSource("a", str(tiny / f"adapter_{name}"), "") for name in ("small", "notebook")]
    with Served(tiny, max_adapters=2) as served:
        adapters = served._preparation.adapters
        resident = []
        for number in range(LOADS):
            assert adapters.serve([sources[number % 2]._replace(version=str(number))]) == {}
            resident.append(resident_bytes())
        assert_loaded(served, {LOADS - 1})
        growth = resident[-1] - resident[LOADS // 3]
        assert growth < 50 * 2**20, f"{growth / 2**20:.0f} MiB in {LOADS - LOADS // 3} loads"
        adapters.serve([])
        assert_loaded(served, set())
        runner = served.engine._runner
        assert not any(len(each.down) for each in runner._layers._low_ranks.values())
        assert not any(each.factors for each in runner._layers._convolutions.values())
        assert not runner._loaded


def test_there_are_no_more_than_the_setting_allows(tiny):
    sources = [AdapterSource(name, str(tiny / "adapter_small"), "") for name in ("one", "two", "three")]
    with Served(tiny, max_adapters=2) as served:
        adapters = served._preparation.adapters
        errors = adapters.serve(sources)
        assert {name: str(error) for name, error in errors.items()} == {
            "three": "max_adapters: got 3 adapters, expected at most 2"
        }
        assert [adapter.name for adapter in adapters.adapters] == ["one", "two"]


def assert_loaded(served, expected: set[int]) -> None:
    """Assert that the adapters with these indices, and no others, have factors in memory before long.

    A completion can be seen before its adapter is released, and the engine makes changes between two steps.
    """
    deadline = time.monotonic() + SECONDS
    while _loaded(served) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    gc.collect()
    assert _loaded(served) == expected


def _loaded(served) -> set[int]:
    low_ranks = served.engine._runner._layers._low_ranks.values()
    return {adapter for each in low_ranks for adapter in list(each.spans)}
