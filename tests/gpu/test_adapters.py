"""On a GPU: batches that mix the model and adapters answer as peft does with each adapter alone."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.engine.adapters.adapter_set import AdapterSource

from tests.engine.adapters import peft_adapters
from tests.engine.served import Served
from tests.engine.test_parity import OPTIONS, assert_parity
from tests.reference import TASKS, Reference, png
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

DEVICE = "cuda"
ADAPTERS = {
    "text": {"r": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "fc2", "lm_head"], "use_rslora": True},
    "images": {"r": 4, "target_modules": r".*(conv|qkv|proj|image_projection|fc1)"},
    "tokens": {"r": 3, "target_modules": ["out_proj"], "trainable_token_indices": [5, 7, 200]},
}
CASES = 16  # of each adapter, and of the model


@pytest.fixture(scope="module", autouse=True)
def exact_matrix_products():
    """No TF32: with its rounding, ties are decided differently."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="module")
def folders(random_checkpoint, tmp_path_factory):
    """The adapters that peft has saved, by name."""
    base = Reference(random_checkpoint).model
    return {
        name: peft_adapters.save(peft_adapters.make_adapter(base, **options), tmp_path_factory.mktemp(name))
        for name, options in ADAPTERS.items()
    }


@pytest.fixture(scope="module")
def cases(random_checkpoint, folders):
    """The same requests for the model and for each adapter, by name."""
    chosen = random.Random(3)
    images = [png(draw(sample_scene(seed))) for seed in range(3)]
    requests = [(chosen.choice(images), chosen.choice(TASKS), chosen.choice(OPTIONS)) for _ in range(CASES)]
    found = {}
    for name in ("", *folders):
        reference = Reference(random_checkpoint, device=DEVICE)
        if name:
            adapted = peft_adapters.reload(reference.model, folders[name])
            reference.model = adapted.base_model.model.to(DEVICE)
        found[name] = [
            reference.case_of(image, TaskRequest(**task, adapter=name, generation=GenerationOptions(**options)))
            for image, task, options in requests
        ]
    return found


def test_tokens_equal_those_of_peft_after_adapters_are_loaded_and_unloaded(random_checkpoint, folders, cases, caplog):
    sources = {name: AdapterSource(name, str(folder), "") for name, folder in folders.items()}
    sets = (["text"], ["text", "images", "tokens"], ["tokens", "images"])  # the last one changes where factors lie
    with Served(random_checkpoint, device=DEVICE, dtype="float32", slots=8, rows=24) as served:
        for names in sets:
            assert served._preparation.adapters.serve([sources[name] for name in names]) == {}
            mixed = [case for each in zip(*(cases[name] for name in ("", *names)), strict=True) for case in each]
            with ThreadPoolExecutor(16) as callers:
                assert_parity(mixed, list(callers.map(served.complete, mixed)))
    assert "cannot be recorded" not in caplog.text
    for name in folders:
        different = [one.expected != other.expected for one, other in zip(cases[name], cases[""], strict=True)]
        assert sum(different) > CASES / 2, f"{name} changes the answers"
