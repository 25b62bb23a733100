"""A batch that mixes the model and several adapters, against peft with one adapter and one sequence at a time."""

import itertools
from copy import deepcopy

import peft
import pytest
import torch
from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import AdapterTensors, Factors, TokenRows
from florence2_server.engine.model.normalization import Normalization
from florence2_server.engine.model.runner import Runner

from tests.engine.model.conftest import VOCABULARY

TOLERANCE = 2e-4
SIDE = 48
ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
LINEAR = [*ATTENTION, "fc1", "fc2", "lm_head", "qkv", "proj", "image_projection"]
ADAPTERS = {
    "attention": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "linear layers": {"r": 8, "lora_alpha": 8, "use_rslora": True, "target_modules": LINEAR},
    "feed-forward and head": {"r": 2, "lora_alpha": 3, "target_modules": ["fc1", "fc2", "lm_head"]},
    "vision": {"r": 5, "lora_alpha": 10, "target_modules": r".*vision_tower.*(conv|qkv|proj|fc1|fc2)"},
    "ranks": {
        "r": 3,
        "lora_alpha": 4,
        "target_modules": ["k_proj", "out_proj", "fc2"],
        "rank_pattern": {"k_proj": 7},
        "alpha_pattern": {"fc2": 9},
    },
}


def _with_adapter(model, settings):
    """Transformers' model with an adapter of peft's, whose weights are random instead of zero."""
    adapted = peft.get_peft_model(deepcopy(model), peft.LoraConfig(**settings)).eval()
    torch.manual_seed(len(str(settings)))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.2
    return adapted


def _tensors(adapted) -> AdapterTensors:
    factors = {}
    for name, layer in adapted.base_model.model.named_modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            down, up = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
            factors[name] = Factors(down, up.flatten(1) * layer.scaling["default"])
    assert factors, "the adapter has targets"
    return AdapterTensors(factors, None, None, VOCABULARY)


def _runner(model) -> Runner:
    identity = Normalization(1 / 255, (0.0,) * 3, (1.0,) * 3)
    return Runner(deepcopy(model), identity, slots=8, rows=16, positions=200)


@torch.inference_mode()
def _expected(model, pixels, prompt, tokens):
    """The logits after each token, from transformers' own forward."""
    florence = model.base_model.model if isinstance(model, peft.PeftModel) else model
    features = florence.get_image_features(pixels[None] / 255).pooler_output
    inputs = torch.cat([features, florence.get_input_embeddings()(torch.tensor([prompt]))], dim=1)
    language = florence.model.language_model
    encoded = language.encoder(inputs_embeds=inputs).last_hidden_state
    decoded = language.decoder(input_ids=torch.tensor([tokens]), encoder_hidden_states=encoded).last_hidden_state
    return florence.lm_head(decoded)[0]


def _found(runner, pixels, prompts, tokens, beams, adapters):
    """The logits of all rows after each token."""
    embeddings = [runner.encode_images([image], adapter)[0] for image, adapter in zip(pixels, adapters, strict=True)]
    runner.prefill(0, embeddings, prompts, adapters)
    rows_of_slots, start = [], 0
    for count in beams:
        rows_of_slots.append(list(range(start, start + count)))
        start += count
    steps = len(tokens[0])
    fed = [tokens[slot] for slot, rows in enumerate(rows_of_slots) for _ in rows]
    return torch.stack(
        [
            runner.decode_step([row[step] for row in fed], [step] * start, rows_of_slots, adapters)
            for step in range(steps)
        ],
        dim=1,
    ), rows_of_slots


def _random_inputs(count):
    generator = torch.Generator().manual_seed(2)
    pixels = [torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8) for _ in range(count)]
    lengths = [3 + index % 3 for index in range(count)]
    prompts = [torch.randint(4, 90, (length,), generator=generator).tolist() for length in lengths]
    tokens = [torch.randint(4, 90, (5,), generator=generator).tolist() for _ in range(count)]
    return pixels, prompts, tokens


def _assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")
def test_one_batch_mixes_the_model_and_adapters_of_all_kinds(model):
    adapted = [_with_adapter(model, settings) for settings in ADAPTERS.values()]
    runner = _runner(model)
    for index, each in enumerate(adapted):
        runner.load_adapter(10 + index, _tensors(each))
    adapters = [BASE, *(10 + index for index in range(len(adapted))), BASE, 11]
    models = [model, *adapted, model, adapted[1]]
    pixels, prompts, tokens = _random_inputs(len(models))
    found, rows_of_slots = _found(runner, pixels, prompts, tokens, [1, 2, 1, 3, 1, 2, 2, 1], adapters)
    for slot, each in enumerate(models):
        expected = _expected(each, pixels[slot], prompts[slot], tokens[slot])
        for row in rows_of_slots[slot]:
            _assert_close(found[row], expected)
    unadapted = _expected(model, pixels[2], prompts[2], tokens[2])
    assert not torch.allclose(found[rows_of_slots[2][0]], unadapted, atol=0.1), "the adapter changes the answer"


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")
def test_an_unloaded_adapter_leaves_the_others_as_they_were(model):
    adapted = [_with_adapter(model, settings) for settings in ADAPTERS.values()]
    runner = _runner(model)
    for index, each in enumerate(adapted):
        runner.load_adapter(index, _tensors(each))
    runner.unload_adapter(1)
    runner.unload_adapter(0)
    runner.load_adapter(0, _tensors(adapted[1]))  # an index may be used again
    kept = {BASE: model, 0: adapted[1], 2: adapted[2], 3: adapted[3], 4: adapted[4]}
    pixels, prompts, tokens = _random_inputs(len(kept))
    found, _ = _found(runner, pixels, prompts, tokens, [1] * len(kept), list(kept))
    for slot, each in enumerate(kept.values()):
        _assert_close(found[slot], _expected(each, pixels[slot], prompts[slot], tokens[slot]))


def test_a_target_that_the_model_does_not_have_leaves_nothing_behind(model):
    runner, factors = _runner(model), Factors(torch.ones(1, 32), torch.ones(32, 1))
    name = "model.language_model.decoder.layers.0.self_attn.q_proj"
    with pytest.raises(KeyError, match="nothing"):
        runner.load_adapter(0, AdapterTensors({name: factors, "nothing": factors}, None, None, VOCABULARY))
    assert _stored(runner) == 0


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")
@pytest.mark.parametrize("failing", range(0, 90, 7))
def test_too_little_memory_for_an_adapter_leaves_the_others_as_they_were(model, monkeypatch, failing):
    adapted = _with_adapter(model, ADAPTERS["linear layers"])
    runner = _runner(model)
    runner.load_adapter(0, _tensors(adapted))
    before, concatenate, calls = _stored(runner), torch.cat, itertools.count()

    def cat(*arguments):
        if next(calls) == failing:
            raise torch.OutOfMemoryError
        return concatenate(*arguments)

    tensors = _tensors(adapted)
    monkeypatch.setattr(torch, "cat", cat)
    with pytest.raises(torch.OutOfMemoryError):
        runner.load_adapter(1, tensors)
    monkeypatch.undo()
    assert _stored(runner) == before
    pixels, prompts, tokens = _random_inputs(2)
    found, _ = _found(runner, pixels, prompts, tokens, [1, 1], [0, BASE])
    for slot, each in enumerate((adapted, model)):
        _assert_close(found[slot], _expected(each, pixels[slot], prompts[slot], tokens[slot]))


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")
def test_what_an_overflow_leaves_in_the_cache_does_not_reach_the_next_generations(model):
    """Attention multiplies by 0 what is beyond a shorter generation: 0 x NaN is NaN."""
    runner = _runner(model)
    tensors = _tensors(_with_adapter(model, ADAPTERS["linear layers"]))
    huge = {name: Factors(each.down * 1e37, each.up * 1e37) for name, each in tensors.factors.items()}
    runner.load_adapter(0, AdapterTensors(huge, None, None, VOCABULARY))
    pixels, prompts, tokens = _random_inputs(3)
    found, _ = _found(runner, pixels, [prompts[2] * 5] * 3, tokens, [2, 1, 2], [0, 0, 0])
    assert found.isnan().any()
    embeddings = [runner.encode_images([image])[0] for image in pixels]
    prompts = [prompts[0], prompts[1] * 6, prompts[2] * 2]
    runner.prefill(0, embeddings, prompts)
    steps = [len(tokens[0]), 2, 2]  # the rows are at different positions, as if they had started at different steps
    runner.move_slot(2, 1)  # a slot that is moved is shorter than the one whose place it takes
    runner.move_slot(0, 2)
    prompts, pixels = [prompts[0], prompts[2], prompts[0]], [pixels[0], pixels[2], pixels[0]]
    for step in range(steps[0]):
        running = [slot for slot in range(3) if step >= steps[0] - steps[slot]]
        rows = {slot: row for row, slot in enumerate(running)}
        positions = [step - steps[0] + steps[slot] for slot in running]
        fed = [tokens[slot][position] for slot, position in zip(running, positions, strict=True)]
        logits = runner.decode_step(fed, positions, [[rows[slot]] for slot in running])
    for slot in range(3):
        expected = _expected(model, pixels[slot], prompts[slot], tokens[slot][: steps[slot]])
        _assert_close(logits[slot], expected[-1])


def test_rows_of_tokens_that_an_adapter_changes_and_adds(model):
    changed = deepcopy(model)
    changed.resize_token_embeddings(VOCABULARY + 3)
    ids = torch.tensor([7, 50, 100, 101, 102])
    torch.manual_seed(1)
    rows = torch.randn(5, 32)
    changed.get_input_embeddings().weight.data[ids] = rows
    assert torch.equal(changed.lm_head.weight[ids], rows), "the output layer is tied"
    runner = _runner(model)
    runner.load_adapter(0, AdapterTensors({}, TokenRows(ids, rows), TokenRows(ids, rows), VOCABULARY + 3))
    runner.load_adapter(1, _tensors(adapted := _with_adapter(model, ADAPTERS["linear layers"])))
    pixels, prompts, tokens = _random_inputs(3)
    prompts[0], tokens[0] = [3, 50, 101, 8], [4, 102, 7, 100, 9]
    found, _ = _found(runner, pixels, prompts, tokens, [1, 1, 1], [0, 1, BASE])
    _assert_close(found[0], _expected(changed, pixels[0], prompts[0], tokens[0]))
    for slot, each in ((1, adapted), (2, model)):
        _assert_close(found[slot, :, :VOCABULARY], _expected(each, pixels[slot], prompts[slot], tokens[slot]))
        assert (found[slot, :, VOCABULARY:] == -torch.inf).all()


def test_an_adapter_takes_the_memory_of_its_own_factors(model):
    runner = _runner(model)
    before = _stored(runner)
    tensors = _tensors(_with_adapter(model, ADAPTERS["linear layers"]))
    runner.load_adapter(0, tensors)
    own = sum(each.down.nbytes + each.up.nbytes for each in tensors.factors.values())
    assert _stored(runner) - before == own
    runner.unload_adapter(0)
    assert _stored(runner) == before


def _stored(runner) -> int:
    return sum(each.down.nbytes + each.up.nbytes for each in runner._layers._low_ranks.values())
