"""Converted checkpoints, read by plain transformers and by the engine."""

import json
import shutil
from dataclasses import replace

import PIL.Image
import pytest
import torch
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.conversion import convert
from florence2_server.engine.checkpoint.loading import Layout, load
from florence2_server.engine.errors import CheckpointError
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AddedToken, Florence2ForConditionalGeneration, Florence2Processor, GenerationConfig

from tests.engine.checkpoint.folders import edit_json
from tests.engine.served import Served
from tests.original_layout import random_model, save_original

ADDED_TOKEN = AddedToken("<INVOICE>", special=True, normalized=False)
SENTENCES = ["What does the image describe?", "a <loc_7><and>b", "<INVOICE>What is the größte total?", "x <s> </s>"]
SHARED, HEAD = "model.language_model.shared.weight", "lm_head.weight"


def engine_config(folder) -> EngineConfig:
    return EngineConfig(checkpoint=str(folder), device="cpu")


@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    convert(engine_config(tiny), folder)
    return folder


def plain_transformers(folder):
    """Model and processor as plain transformers loads them."""
    model, loading = Florence2ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading[fault] for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval(), Florence2Processor.from_pretrained(folder)


def inputs(processor, picture, prompt):
    return processor(images=PIL.Image.open(picture), text=prompt, return_tensors="pt")


def once_per_image(encode):
    """Cache image features: the vision tower takes most of the time of a short answer."""
    known = {}

    def encode_once(pixel_values, **options):
        key = pixel_values.numpy().tobytes()
        if key not in known:
            known[key] = encode(pixel_values, **options)
        return known[key]

    return encode_once


def test_plain_transformers_generates_the_tokens_of_the_original_code(tiny, converted):
    model, processor = plain_transformers(converted)
    model.model.get_image_features = once_per_image(model.model.get_image_features)
    expected = json.loads((tiny / "expected.json").read_text())
    for each in expected:
        read = inputs(processor, tiny / each["image"], each["prompt"])
        assert read["input_ids"][0, 577:].tolist() == each["prompt_ids"]
        tokens = model.generate(**read, num_beams=each["num_beams"], max_new_tokens=50)[0].tolist()
        assert tokens == each["token_ids"], each["prompt"]
    assert len(expected) > 30


def test_the_engine_generates_the_same_tokens_from_the_converted_checkpoint(tiny, converted):
    expected = json.loads((tiny / "expected.json").read_text())
    with Served(converted, slots=3) as served:
        for each in expected:
            picture = (tiny / each["image"]).read_bytes()
            tokens = served.tokens(picture, each["prompt"], num_beams=each["num_beams"], max_new_tokens=50)
            assert tokens == each["token_ids"], each["prompt"]


def test_weights_are_safetensors_of_the_same_dtype_without_tied_duplicates(converted):
    with safe_open(converted / "model.safetensors", "pt") as weights:
        assert weights.metadata()["format"] == "pt"
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
        assert [name for name in weights.keys() if "embed_tokens" in name or name == HEAD] == []  # noqa: SIM118
    config = json.loads((converted / "config.json").read_text())
    assert config["model_type"] == "florence2"
    assert {config["dtype"], config["text_config"]["dtype"], config["vision_config"]["dtype"]} == {"float16"}
    assert "auto_map" not in json.dumps(config) + (converted / "processor_config.json").read_text()


def test_the_image_token_has_the_last_id_and_the_embedding_of_pad(tiny, converted):
    tokenizer = Florence2Processor.from_pretrained(converted).tokenizer
    original = load(engine_config(tiny)).tokenizer
    assert tokenizer.image_token_id == len(original) == 51289
    ids = range(len(original))
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == original.convert_ids_to_tokens(ids)
    embeddings = load_file(converted / "model.safetensors")[SHARED]
    assert len(embeddings) == 51290
    assert torch.equal(embeddings[51289], embeddings[original.pad_token_id])


def test_the_converted_processor_parses_answers(converted):
    processor = Florence2Processor.from_pretrained(converted)
    answer = "</s><s>cat<loc_0><loc_100><loc_200><loc_300></s>"
    found = processor.post_process_generation(answer, task="<OD>", image_size=(1000, 1000))
    assert found["<OD>"]["labels"] == ["cat"]
    quad = "CAFE<loc_0><loc_0><loc_99><loc_0><loc_99><loc_99><loc_0><loc_99>"
    found = processor.post_process_generation(quad, task="<OCR_WITH_REGION>", image_size=(1000, 1000))
    assert found["<OCR_WITH_REGION>"]["labels"] == ["CAFE"]


def original_fine_tune(tiny, folder, *, vocabulary=51289, tied=True, says_so=False, own_tokens=()):
    config = json.loads((tiny / "config.json").read_text())
    if says_so:
        config["text_config"]["tie_word_embeddings"] = tied
    save_original(random_model(config, vocabulary, tied=tied), config, tiny, folder, own_tokens)


def pickled(tiny, folder):
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("adapter_*", "*.safetensors", "*.png"))
    torch.save(load_file(tiny / "model.safetensors"), folder / "pytorch_model.bin")


def with_an_added_token(tiny, folder):
    original_fine_tune(tiny, folder, vocabulary=51290, own_tokens=(ADDED_TOKEN,))


def with_spare_embeddings(tiny, folder):
    original_fine_tune(tiny, folder, vocabulary=51328)


def with_a_separate_output_layer(tiny, folder):
    original_fine_tune(tiny, folder, tied=False)


def with_an_output_layer_untied_by_the_config(tiny, folder):
    original_fine_tune(tiny, folder, tied=False, says_so=True)


def in_native_layout(tiny, folder):
    convert(engine_config(tiny), folder)
    edit_json(folder / "generation_config.json", num_beams=2, max_new_tokens=7, eos_token_id=1, length_penalty=2.0)


@pytest.mark.parametrize(
    "make",
    [
        pickled,
        with_an_added_token,
        with_spare_embeddings,
        with_a_separate_output_layer,
        with_an_output_layer_untied_by_the_config,
        in_native_layout,
    ],
)
def test_conversion_changes_nothing_that_the_engine_uses(tiny, tmp_path, make):
    source, folder = tmp_path / "source", tmp_path / "converted"
    make(tiny, source)
    convert(engine_config(source), folder)
    before, after = load(engine_config(source)), load(engine_config(folder))
    assert after.layout is Layout.NATIVE
    assert after.saved_dtype is before.saved_dtype
    rules = replace(after.generation.rules, image_token_id=before.generation.rules.image_token_id)
    assert replace(after.generation, rules=rules) == before.generation
    assert after.image_tokens == before.image_tokens
    for sentence in SENTENCES:
        assert after.tokenizer(sentence)["input_ids"] == before.tokenizer(sentence)["input_ids"]
    assert_same_weights(before.model, after.model)
    assert_same_weights(before.model, plain_transformers(folder)[0])


def assert_same_weights(before, after):
    weights, converted = before.state_dict(), after.state_dict()
    assert weights.keys() == converted.keys()
    for name, tensor in weights.items():
        assert torch.equal(converted[name][: len(tensor)], tensor), name
    assert (before.lm_head.weight is before.get_input_embeddings().weight) is (
        after.lm_head.weight is after.get_input_embeddings().weight
    )


@pytest.mark.parametrize("make", [with_a_separate_output_layer, with_an_added_token])
def test_plain_transformers_generates_the_tokens_that_the_engine_generates_from_the_source(tiny, tmp_path, make):
    source, folder = tmp_path / "source", tmp_path / "converted"
    make(tiny, source)
    convert(engine_config(source), folder)
    model, processor = plain_transformers(folder)
    picture = tiny / "scene0.png"
    with Served(source, slots=1) as served:
        for options in ({}, {"num_beams": 1}):
            tokens = served.tokens(picture.read_bytes(), "<CAPTION>", max_new_tokens=15, **options)
            read = inputs(processor, picture, "<CAPTION>")
            assert model.generate(**read, max_new_tokens=15, **options)[0].tolist() == tokens


def test_the_written_generation_defaults_are_those_of_the_engine(tiny, tmp_path):
    source, folder = tmp_path / "source", tmp_path / "converted"
    in_native_layout(tiny, source)
    edit_json(source / "generation_config.json", do_sample=True, temperature=0.3, pad_token_id=0, bad_words_ids=[[7]])
    convert(engine_config(source), folder)
    written = GenerationConfig.from_pretrained(folder)
    assert (written.num_beams, written.max_new_tokens, written.length_penalty) == (2, 7, 2.0)
    assert (written.eos_token_id, written.pad_token_id, bool(written.do_sample)) == (2, 1, False)
    assert (written.temperature, written.bad_words_ids) == (None, [[7]])


def test_an_unset_length_becomes_the_models_limit(converted):
    assert GenerationConfig.from_pretrained(converted).max_new_tokens == 1024


def test_the_servers_limits_are_not_written_to_the_checkpoint(tiny, tmp_path):
    config = json.loads((tiny / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 4096
    save_original(random_model(config), config, tiny, tmp_path / "source")
    served = EngineConfig(checkpoint=str(tmp_path / "source"), positions=700, max_new_tokens=5, max_beams=3)
    convert(served, tmp_path / "converted")
    assert GenerationConfig.from_pretrained(tmp_path / "converted").max_new_tokens == 4096
    assert load(engine_config(tmp_path / "converted")).model.config.text_config.max_position_embeddings == 4096


def test_an_empty_folder_is_filled_and_any_other_is_left_unchanged(random_checkpoint, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    convert(engine_config(random_checkpoint), empty)
    before = sorted(path.name for path in empty.iterdir())
    assert "model.safetensors" in before
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in empty.iterdir())
    with pytest.raises(CheckpointError, match="not overwritten"):
        convert(engine_config(random_checkpoint), empty)
    assert sorted(path.name for path in empty.iterdir()) == before


def test_a_checkpoint_that_cannot_be_served_is_not_converted(random_checkpoint, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(random_checkpoint, damaged)
    (damaged / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        convert(engine_config(damaged), tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]
