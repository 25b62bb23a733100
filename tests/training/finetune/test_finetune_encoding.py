"""What the model sees in training is what the server feeds it."""

import pickle

import PIL.Image
import pytest
import torch
from florence2.tasks import TASKS
from florence2.v1 import TaskRequest
from florence2_server.config import EngineConfig
from florence2_server.engine.build import build
from florence2_server.plan_execution import prepare
from torch.utils.data import DataLoader

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE, HEIC_FILES
from training.finetune.dataset import IGNORED, Collator, ExampleDataset
from training.finetune.encoding import ExampleEncoder, ImageLoader, count_repetitive
from training.finetune.errors import DataError, ImageError
from training.finetune.examples import Example

INPUTS = {"region": "<loc_52><loc_332><loc_932><loc_774>", None: ""}
PROMPTS = [
    f"{task.token}{INPUTS.get(task.input, 'a red circle<and>a blue square')}" for task in TASKS if task.token
] + [
    "<DocVQA>What is the größte total? <loc_7>",
    "What color is the left-most shape?",
    "In the middle: <OD><s></s><pad><image>",
    " <CAPTION>",
]


def example(prompt="<CAPTION>", answer="A red circle.", image=EXAMPLE_SCENE):
    return Example(image, prompt, (answer,), "train.jsonl:3")


@pytest.fixture(scope="module")
def encoder(demo):
    return ExampleEncoder(demo)


@pytest.fixture(scope="module")
def served():
    """`served(prompt, image)`: the generation that the server's engine is given."""
    built = build(EngineConfig(checkpoint=str(DEMO_CHECKPOINT), slots=1))

    def served(prompt, image=EXAMPLE_SCENE):
        return prepare(built.preparation, image.read_bytes(), TaskRequest(prompt=prompt))

    return served


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_has_the_token_ids_that_the_server_feeds_the_model(encoder, served, prompt):
    assert encoder.encode(example(prompt)).prompt_ids == served(prompt).prompt_ids


@pytest.mark.parametrize("prompt", PROMPTS[:-2])
def test_a_prompt_has_the_token_ids_of_the_processor(encoder, reference, prompt):
    inputs = reference.processor(text=prompt, images=PIL.Image.open(EXAMPLE_SCENE))
    ids = [token for token in inputs["input_ids"][0] if token != reference.processor.image_token_id]
    assert encoder.encode(example(prompt)).prompt_ids == ids


@pytest.mark.parametrize("image", [EXAMPLE_SCENE, *sorted(HEIC_FILES.glob("*.heic"))], ids=lambda path: path.name)
def test_an_image_has_the_pixels_that_the_server_feeds_the_model(demo, served, image):
    assert torch.equal(ImageLoader(demo.image_processor)(image), served("<OD>", image).image.pixels)


def test_worker_processes_get_a_loader_of_their_own(demo):
    loader = ImageLoader(demo.image_processor)
    assert torch.equal(pickle.loads(pickle.dumps(loader))(EXAMPLE_SCENE), loader(EXAMPLE_SCENE))  # noqa: S301


def test_an_answer_has_the_token_ids_of_the_tokenizer(encoder, demo):
    answer = "red circle<loc_5><loc_10><loc_20><loc_30>blue square<loc_1><loc_2><loc_3><loc_4>, größte <and> <sep>"
    assert encoder.encode(example(answer=answer)).label_ids == demo.tokenizer(answer)["input_ids"]
    assert encoder.text(encoder.encode(example(answer=answer)).label_ids) == f"<s>{answer}</s>"
    # Control tokens in an answer are text.
    assert demo.tokenizer.eos_token_id not in encoder.encode(example(answer="</s>")).label_ids[:-1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (example("<OD>car"), "train.jsonl:3: prompt: got '<OD>car', expected nothing after <OD>"),
        (example("x" * 5000), "train.jsonl:3: prompt: got '5002 tokens', expected at most 959 tokens"),
        (example(answer="x" * 5000), "train.jsonl:3: answer: got '5002 tokens', expected at most 1024 tokens"),
    ],
)
def test_what_the_server_would_reject_is_named_with_its_line(encoder, wrong, message):
    with pytest.raises(DataError) as raised:
        encoder.encode(wrong)
    assert str(raised.value).startswith(message)


def test_a_damaged_image_is_named(demo, tmp_path):
    (tmp_path / "a.png").write_bytes(EXAMPLE_SCENE.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a\.png: image: got .*, expected a complete, undamaged image"):
        ImageLoader(demo.image_processor)(tmp_path / "a.png")


def test_a_damaged_image_is_named_in_one_line_by_a_worker_process_too(demo, encoder, tmp_path):
    (tmp_path / "a.png").write_bytes(EXAMPLE_SCENE.read_bytes()[:100])
    encoded = [encoder.encode(example(image=tmp_path / "a.png"))]
    dataset = ExampleDataset(encoded, ImageLoader(demo.image_processor), are_embedded=False)
    with pytest.raises(ImageError) as raised:
        next(iter(DataLoader(dataset, num_workers=1)))
    assert str(raised.value).startswith(f"{tmp_path}/a.png: image: got ")
    assert "\n" not in str(raised.value)


def test_answers_that_the_checkpoint_cannot_give_are_counted(encoder):
    repetitive = example(answer="red circle red circle red circle")
    assert count_repetitive(map(encoder.encode, [example(), repetitive]), 3) == 1
    assert count_repetitive([encoder.encode(repetitive)], 0) == 0


def test_padding_is_masked_and_ignored():
    tensors = [
        {"input_ids": torch.tensor([0, 5, 6, 2]), "labels": torch.tensor([0, 2]), "pixels": torch.zeros(3, 2, 2)},
        {"input_ids": torch.tensor([0, 2]), "labels": torch.tensor([0, 7, 2]), "pixels": torch.ones(3, 2, 2)},
    ]
    batch = Collator(pad_token_id=1, image_tokens=3)(tensors)
    assert batch["input_ids"].tolist() == [[0, 5, 6, 2], [0, 2, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 5 + [0] * 2]
    assert batch["labels"].tolist() == [[0, 2, IGNORED], [0, 7, 2]]
    assert batch["pixels"].shape == (2, 3, 2, 2)
