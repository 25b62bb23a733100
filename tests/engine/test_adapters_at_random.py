"""Random adapters of every kind, mixed in one batch, against `generate()` with peft's unmerged model for each alone."""

import io
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import PIL.Image
import pytest
import torch
from florence2.v1 import GenerationOptions, TaskRequest

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.adapters import peft_adapters
from tests.engine.served import Served

ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
ADAPTERS = {
    "rank 1, convolutions and attention": {"r": 1, "lora_alpha": 2, "target_modules": ["conv", "q_proj", "v_proj"]},
    "rank 64, all linear layers": {"r": 64, "lora_alpha": 4, "use_rslora": True, "target_modules": "all-linear"},
    "rank 3, patterns": {
        "r": 3,
        "lora_alpha": 5,
        "target_modules": ["fc1", "fc2", "k_proj", "out_proj", "lm_head", "conv", "qkv", "image_projection"],
        "rank_pattern": {"fc1": 1, r".*decoder.*k_proj": 7, "lm_head": 64},
        "alpha_pattern": {"fc2": 0.5, r".*vision_tower.*qkv": 9},
    },
    "rank 3, rank-stabilized patterns": {
        "r": 3,
        "lora_alpha": 2,
        "use_rslora": True,
        "target_modules": [*ATTENTION, "proj", "conv"],
        "rank_pattern": {"conv": 5, "q_proj": 1},
        "alpha_pattern": {"out_proj": 1, "conv": 3},
    },
    "negative alpha": {"r": 2, "lora_alpha": -3, "target_modules": [*ATTENTION, "fc1"]},
}
PROMPTS = ["<CAPTION>", "<OD>", "What does the image describe?", "Locate the objects with category name in the image."]
CASES = 60


@dataclass(frozen=True)
class Drawn:
    """A request that was drawn at random."""

    adapter: str
    image: bytes
    prompt: str
    options: dict[str, Any]


@pytest.fixture(scope="module")
def adapted(reference, tmp_path_factory):
    """Unmerged models of peft by name, and the folders of their adapters."""
    models, folders = {"": reference.model}, {}
    for number, settings in enumerate(ADAPTERS.values()):
        model = peft_adapters.make_adapter(reference.model, seed=number, **settings)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.mul_(0.15)  # so that answers end at different lengths
        folder = tmp_path_factory.mktemp("adapter")
        folders[f"a{number}"] = peft_adapters.save(model, folder)
        models[f"a{number}"] = model
    return models, folders


def drawn_at_random(generator: random.Random, names: list[str], image_file) -> Drawn:
    length = generator.choice([1, 5, 20, 40])
    options = {"num_beams": generator.choice([1, 3]), "max_new_tokens": length}
    if generator.random() < 0.5:
        options["min_new_tokens"] = generator.randrange(length)
    image = image_file(64, 48, seed=generator.randrange(4))
    return Drawn(generator.choice(names), image, generator.choice(PROMPTS), options)


def generated(models, processor, drawn: Drawn, dtype: torch.dtype) -> list[int]:
    """The tokens of `generate()`, for this request alone."""
    picture = PIL.Image.open(io.BytesIO(drawn.image))
    inputs = processor(images=picture, text=drawn.prompt, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    model = models[drawn.adapter]
    model = model if dtype == torch.float32 else deepcopy(model).to(dtype)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokens: list[int] = model.generate(**inputs, **drawn.options)[0].tolist()
    return tokens


def test_random_adapters_answer_as_peft_does_while_generations_come_and_go(reference, adapted, image_file):
    models, folders = adapted
    generator = random.Random(7)
    cases = [drawn_at_random(generator, list(models), image_file) for _ in range(CASES)]
    with Served(DEMO_CHECKPOINT, slots=5, adapters=folders) as served:

        def tokens(drawn: Drawn) -> list[int]:
            options = GenerationOptions(**drawn.options)
            request = TaskRequest(prompt=drawn.prompt, adapter=drawn.adapter, generation=options)
            return list(served.run(drawn.image, request).token_ids)

        with ThreadPoolExecutor(8) as callers:
            found = list(callers.map(tokens, cases))
        assert served.engine.statistics.decode_rows > 3 * served.engine.statistics.decode_steps, "they were mixed"
    different = [
        drawn
        for drawn, ids in zip(cases, found, strict=True)
        if ids != generated(models, reference.processor, drawn, torch.float32)
    ]
    for drawn in different:  # a near tie, which rounding decides, if float64 decides otherwise than float32
        exact = generated(models, reference.processor, drawn, torch.float64)
        assert exact != generated(models, reference.processor, drawn, torch.float32), drawn
    assert len(different) <= CASES / 20
    assert len({tuple(ids) for ids in found}) > CASES / 3, "adapters change the answers"
