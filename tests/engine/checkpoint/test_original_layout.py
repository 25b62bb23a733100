"""Checkpoints in the layout of microsoft/Florence-2-*, and fine-tunes of them, however they were saved."""

import json
import shutil

import pytest
import torch
from florence2 import expand_prompt
from florence2_server.engine.checkpoint.loading import Layout
from florence2_server.engine.search_options import EarlyStopping
from safetensors.torch import save_file
from transformers import AddedToken

from benchmarks.kernels.original_layout import original_tensors
from tests.engine.checkpoint.folders import (
    SHARED,
    load_folder,
    read_json,
    save_pickle,
    save_safetensors,
    set_in,
    set_in_preprocessor,
)
from tests.engine.served import Served
from tests.original_layout import fine_tuned_tokenizer, generated, random_model, save_original

REPEATED = [
    "language_model.model.encoder.embed_tokens.weight",
    "language_model.model.decoder.embed_tokens.weight",
    "language_model.lm_head.weight",
]


def test_tokens_are_those_of_the_original_code(tiny):
    expected = read_json(tiny / "expected.json")
    images = {name: (tiny / name).read_bytes() for name in {each["image"] for each in expected}}
    with Served(tiny, slots=3) as served:
        for each in expected:
            tokens = served.tokens(
                images[each["image"]], each["prompt"], num_beams=each["num_beams"], max_new_tokens=50
            )
            assert tokens == each["token_ids"], each["prompt"]
    assert len(expected) > 30


def save_old_pickle(weights, folder):
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def save_shards(weights, folder, save, single):
    names = sorted(weights)
    stem, suffix = single.rsplit(".", 1)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        save({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / f"{single}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def save_sharded_safetensors(weights, folder):
    save_shards(weights, folder, lambda part, path: save_file(part, path, {"format": "pt"}), "model.safetensors")


def save_sharded_pickles(weights, folder):
    save_shards(weights, folder, torch.save, "pytorch_model.bin")


def save_repeated(weights, folder):
    save_safetensors({**weights, **{name: weights[SHARED].clone() for name in REPEATED}}, folder)


def save_shared_in_a_pickle(weights, folder):
    save_pickle({**weights, **dict.fromkeys(REPEATED, weights[SHARED])}, folder)


def save_under_another_name(weights, folder):
    save_safetensors({REPEATED[-1] if name == SHARED else name: tensor for name, tensor in weights.items()}, folder)


def save_wrapped(weights, folder):
    save_safetensors({f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}, folder)


def save_without_what_is_computed(weights, folder):
    unneeded = ("language_model.final_logits_bias", "visual_temporal_embed.pos_idx_to_embed")
    save_safetensors({name: tensor for name, tensor in weights.items() if name not in unneeded}, folder)


@pytest.mark.parametrize(
    "save",
    [
        save_safetensors,
        save_pickle,
        save_old_pickle,
        save_sharded_safetensors,
        save_sharded_pickles,
        save_repeated,
        save_shared_in_a_pickle,
        save_under_another_name,
        save_wrapped,
        save_without_what_is_computed,
    ],
)
def test_weights_are_the_same_however_they_were_saved(tiny_copy, weights, loaded, save):
    save(weights, tiny_copy)
    checkpoint = load_folder(tiny_copy)
    assert checkpoint.layout is Layout.ORIGINAL
    assert checkpoint.saved_dtype is torch.float16
    assert checkpoint.model.lm_head.weight is checkpoint.model.get_input_embeddings().weight
    found = checkpoint.model.state_dict()
    assert found.keys() == loaded.keys()
    for name in found:
        if save is save_without_what_is_computed and name.endswith("pos_idx_to_embed"):
            continue  # the file's was computed in half precision
        assert torch.equal(found[name], loaded[name]), name


def test_temporal_positions_missing_from_a_file_are_computed(tiny, tiny_copy, weights):
    save_without_what_is_computed(weights, tiny_copy)
    name = "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"
    computed = random_model(read_json(tiny / "config.json")).state_dict()[name]
    assert torch.equal(load_folder(tiny_copy).model.state_dict()[name], computed)


def test_a_fine_tune_with_a_config_as_the_original_code_saves_it_is_served(original_layout_folder, tiny, tmp_path):
    config = read_json(original_layout_folder / "finetune-config" / "config.json")
    model = random_model(config)
    folder = tmp_path / "fine-tune"
    save_original(model, config, tiny, folder)
    assert_tokens_equal_generate(model, folder, fine_tuned_tokenizer(tiny), tiny / "scene0.png")


def test_a_task_token_that_a_fine_tune_added_keeps_its_id_and_embedding(tiny, tmp_path):
    own = (AddedToken("<INVOICE>", special=True, normalized=False),)
    config = read_json(tiny / "config.json")
    model = random_model(config, vocabulary=51290)
    folder = tmp_path / "fine-tune"
    save_original(model, config, tiny, folder, own)
    tokenizer = fine_tuned_tokenizer(tiny, own)
    assert tokenizer.convert_tokens_to_ids("<INVOICE>") == 51289
    prompts = ("<INVOICE>What is the total?", "<OD>")
    assert_tokens_equal_generate(model, folder, tokenizer, tiny / "scene1.png", prompts)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_separate_output_layer_is_used(tiny, tmp_path, says_so):
    config = read_json(tiny / "config.json")
    model = random_model(config, tied=False)
    if says_so:
        config["text_config"]["tie_word_embeddings"] = False
    folder = tmp_path / "fine-tune"
    save_original(model, config, tiny, folder)
    assert_tokens_equal_generate(model, folder, fine_tuned_tokenizer(tiny), tiny / "scene0.png", ("<CAPTION>",))


def assert_tokens_equal_generate(model, folder, tokenizer, picture, prompts=("<OD>", "<CAPTION>")):
    with Served(folder, slots=2) as served:
        for prompt in prompts:
            for beams in (1, 3):
                sentence = expand_prompt(prompt)
                options = {"num_beams": beams, "max_new_tokens": 15}
                expected = generated(model, folder, tokenizer, picture, sentence, **options)
                assert served.tokens(picture.read_bytes(), prompt, **options) == expected


def test_generation_defaults_are_those_of_the_text_config(tiny_copy, weights):
    save_safetensors(weights, tiny_copy)
    assert read_json(tiny_copy / "generation_config.json") == {"num_beams": 3, "early_stopping": False}
    defaults = load_folder(tiny_copy).generation
    assert (defaults.num_beams, defaults.early_stopping, defaults.no_repeat_ngram_size) == (3, EarlyStopping.FIRST, 3)
    assert (defaults.forced_bos_token_id, defaults.forced_eos_token_id, defaults.decoder_start_token_id) == (0, 2, 2)


def save_tokenizer_parts(folder, added):
    tokenizer = read_json(folder / "tokenizer.json")
    (folder / "tokenizer.json").unlink()
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"])
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    (folder / "added_tokens.json").write_text(json.dumps(added))


@pytest.mark.parametrize("own", [[], ["partnumber", "<INVOICE>"]])
def test_a_tokenizer_in_parts_gives_the_same_ids(tiny, tiny_copy, weights, own):
    whole = fine_tuned_tokenizer(tiny, tuple(own))
    added = {token: token_id for token, token_id in whole.get_added_vocab().items() if token_id >= 50265}
    save_tokenizer_parts(tiny_copy, added if own else {})
    table = torch.cat([weights[SHARED], torch.ones(len(own), 64, dtype=torch.float16)])
    save_safetensors({**weights, SHARED: table}, tiny_copy)
    tokenizer = load_folder(tiny_copy).tokenizer
    for text in ("Locate <loc_0><loc_999> ein grünes  Auto", "<and> partnumber <poly>", "<INVOICE>What is the total?"):
        assert tokenizer(text)["input_ids"] == whole(text)["input_ids"], text


def test_null_in_the_config_counts_as_missing(tiny_copy, weights):
    save_safetensors(weights, tiny_copy)
    null = {"max_position_embeddings": None, "tie_word_embeddings": None, "num_beams": None}
    set_in("text_config", **null, forced_eos_token_id=None)(tiny_copy, weights)
    set_in("vision_config", patch_prenorm=None)(tiny_copy, weights)
    set_in(None, quantization_config=None)(tiny_copy, weights)
    defaults = load_folder(tiny_copy).generation
    assert (defaults.positions.value, defaults.num_beams) == (1024, 1)
    assert defaults.forced_eos_token_id is None  # null forces nothing, unlike a field that is missing


def test_the_dtype_is_that_of_the_models_own_tensors(tiny_copy, weights):
    save_safetensors({**weights, "classifier.weight": torch.ones(2, 2)}, tiny_copy)
    assert load_folder(tiny_copy).saved_dtype is torch.float16


def test_float16_weights_are_served_in_float32_on_a_cpu(tiny):
    assert load_folder(tiny).model.dtype is torch.float32


def test_safetensors_are_preferred_to_bin_weights(tiny_copy, weights):
    save_safetensors(weights, tiny_copy)
    (tiny_copy / "pytorch_model.bin").write_bytes(b"not read")
    assert load_folder(tiny_copy, safetensors_only=1).files.weights == ("model.safetensors",)


def test_an_adapter_next_to_the_weights_is_reported_and_not_applied(tiny, tiny_copy, weights, loaded, caplog):
    save_safetensors(weights, tiny_copy)
    for file in (tiny / "adapter_small").iterdir():
        shutil.copy(file, tiny_copy)
    found = load_folder(tiny_copy).model.state_dict()
    assert "adapter_model.safetensors next to the weights is not applied" in caplog.text
    assert all(torch.equal(found[name], loaded[name]) for name in found)


def test_a_single_mean_and_deviation_apply_to_all_channels(tiny_copy, weights):
    save_safetensors(weights, tiny_copy)
    set_in_preprocessor(image_mean=0.5, image_std=0.25)(tiny_copy, weights)
    processor = load_folder(tiny_copy).image_processor
    assert (processor.image_mean, processor.image_std) == ([0.5] * 3, [0.25] * 3)


def test_tensors_that_are_not_part_of_the_model_are_reported(tiny_copy, weights, caplog):
    save_safetensors({**weights, "classifier.weight": torch.ones(2, 2)}, tiny_copy)
    load_folder(tiny_copy)
    assert "1 tensors are not part of Florence-2 and are ignored, e.g. classifier.weight" in caplog.text


def test_independently_written_names_are_those_of_the_file(tiny, weights):
    assert original_tensors(random_model(read_json(tiny / "config.json"))).keys() == weights.keys()
