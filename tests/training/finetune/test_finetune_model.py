from dataclasses import replace

import PIL.Image
import pytest
import torch
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.loading import load

from tests.conftest import EXAMPLE_SCENE
from training.finetune.dataset import Collator, ExampleDataset, embed_all
from training.finetune.encoding import ExampleEncoder, ImageLoader
from training.finetune.errors import SettingError
from training.finetune.examples import Example
from training.finetune.model import TrainedModel, base_model, lora_config, prepare_model
from training.finetune.output import save_checkpoint

ANSWERS = {"<CAPTION>": "A red circle.", "<OD>": "red circle<loc_1><loc_2><loc_3><loc_4>"}
ALL_OF_IT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "lm_head")


@pytest.fixture
def own_demo(demo):
    """A copy of the demo checkpoint, to be trained."""
    return load(replace(EngineConfig(checkpoint=demo.files.name), device="cpu", dtype="float32"))


@pytest.fixture
def batch(demo):
    """A batch of two examples about one image."""
    encoder = ExampleEncoder(demo)
    examples = [encoder.encode(Example(EXAMPLE_SCENE, *item)) for item in ((p, (a,), "") for p, a in ANSWERS.items())]
    dataset = ExampleDataset(examples, ImageLoader(demo.image_processor), are_embedded=False)
    return Collator(demo.tokenizer.pad_token_id, demo.image_tokens)([dataset[0], dataset[1]])


def randomize(model):
    """Give an adapter an effect; a new one has none."""
    torch.manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)


@torch.no_grad()
def logits(model, batch):
    return model.eval()(**batch).logits


def test_the_loss_is_that_of_transformers_with_image_tokens_in_the_prompt(own_demo, batch, reference):
    inputs = reference.processor(
        text=list(ANSWERS), images=[PIL.Image.open(EXAMPLE_SCENE)] * 2, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        expected = reference.model(**inputs, labels=batch["labels"]).loss
        found = TrainedModel.of(own_demo).eval()(**batch).loss
    torch.testing.assert_close(found, expected)


def test_embeddings_made_beforehand_change_nothing(own_demo, batch):
    model = TrainedModel.of(own_demo).eval()
    embeddings = embed_all(model, [EXAMPLE_SCENE], ImageLoader(own_demo.image_processor), torch.device("cpu"))
    pixels = batch.pop("pixels")
    stacked = torch.stack([embeddings[EXAMPLE_SCENE]] * 2)
    torch.testing.assert_close(
        logits(model, {**batch, "image_embeddings": stacked}), logits(model, {**batch, "pixels": pixels})
    )


def test_a_new_adapter_has_no_effect_and_is_all_that_is_trained(own_demo, batch, settings):
    before = logits(TrainedModel.of(own_demo), batch)
    model = prepare_model(own_demo, settings("-"))
    torch.testing.assert_close(logits(model, batch), before)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name and "language_model" in name for name in trained)
    assert base_model(model).vision_is_frozen


def test_an_adapter_may_reach_into_the_vision_tower(own_demo, settings):
    model = prepare_model(own_demo, settings("-", freeze_vision=False))
    assert any("vision_tower" in name and "lora_" in name for name, _ in model.named_parameters())
    assert not base_model(model).vision_is_frozen


def test_a_frozen_vision_tower_stays_in_evaluation_mode(own_demo, settings):
    model = prepare_model(own_demo, settings("-", method="full")).train()
    assert model.training
    assert not model.model.vision_tower.training
    assert not any(weight.requires_grad for weight in model.model.vision_tower.parameters())
    assert model.lm_head.weight.requires_grad


def test_targets_that_no_layer_has_are_an_error(own_demo, settings):
    with pytest.raises(SettingError, match=r"targets: got \('o_proj',\), expected"):
        prepare_model(own_demo, settings("-", targets=("o_proj",)))


@pytest.mark.parametrize("freeze_vision", [True, False])
@pytest.mark.parametrize("targets", [ALL_OF_IT[:-1], ALL_OF_IT])
def test_the_merged_checkpoint_equals_the_adapter(own_demo, batch, settings, tmp_path, targets, freeze_vision):
    model = prepare_model(own_demo, settings("-", targets=targets, freeze_vision=freeze_vision))
    before = logits(model, batch)
    randomize(model)
    expected = logits(model, batch)
    assert not torch.allclose(expected, before, atol=1e-2)
    save_checkpoint(model, own_demo, tmp_path / "merged")
    loaded = load(EngineConfig(checkpoint=str(tmp_path / "merged"), device="cpu", dtype="float32"))
    torch.testing.assert_close(logits(TrainedModel.of(loaded), batch), expected, atol=1e-4, rtol=1e-4)


def test_an_adapter_fits_a_base_in_the_original_layout(original_layout_folder, settings, tmp_path):
    checkpoint = load(EngineConfig(checkpoint=str(original_layout_folder / "tiny"), device="cpu", dtype="float32"))
    encoder, picture = ExampleEncoder(checkpoint), original_layout_folder / "tiny" / "scene0.png"
    encoded = [encoder.encode(Example(picture, "<CAPTION>", ("A red circle.",), ""))]
    dataset = ExampleDataset(encoded, ImageLoader(checkpoint.image_processor), are_embedded=False)
    batch = Collator(checkpoint.tokenizer.pad_token_id, checkpoint.image_tokens)([dataset[0]])
    vocabulary = len(checkpoint.model.lm_head.weight)
    model = prepare_model(checkpoint, settings("-", targets=ALL_OF_IT, freeze_vision=False))
    randomize(model)
    # The native layout has one token more, for the image.
    assert {len(w) for name, w in model.named_parameters() if "lm_head.lora_B" in name} == {vocabulary} == {51289}
    expected = logits(model, batch)
    save_checkpoint(model, checkpoint, tmp_path / "merged")
    merged = load(EngineConfig(checkpoint=str(tmp_path / "merged"), device="cpu", dtype="float32"))
    assert len(merged.model.lm_head.weight) == vocabulary + 1
    found = logits(TrainedModel.of(merged), batch)[..., :vocabulary]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_rank_stabilized_scaling_and_initialization_reach_peft(settings):
    config = lora_config(settings("-", rank=4, alpha=2, rslora=True, initialization="gaussian"))
    assert (config.r, config.lora_alpha, config.use_rslora, config.init_lora_weights) == (4, 2, True, "gaussian")
