"""Checkpoints of microsoft/Florence-2-* and models fine-tuned from them, however they were saved."""

import json
import shutil

import pytest
import torch
from florence2 import expand_prompt
from florence2_engine.checkpoint.loading import Layout, load
from florence2_engine.config import EngineConfig
from florence2_engine.errors import CheckpointError
from florence2_engine.request import EarlyStopping
from safetensors.torch import load_file, save_file
from transformers import AddedToken

from benchmarks.original_layout import original_tensors
from tests.engine.served import Served
from tests.original_layout import fine_tuned_tokenizer, generated, random_model, save_original

SHARED = "language_model.model.shared.weight"
REPEATED = [
    "language_model.model.encoder.embed_tokens.weight",
    "language_model.model.decoder.embed_tokens.weight",
    "language_model.lm_head.weight",
]


def load_folder(folder, **settings):
    return load(EngineConfig(checkpoint=str(folder), device="cpu", **settings))


def read_json(path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def tiny(original_layout_folder):
    return original_layout_folder / "tiny"


@pytest.fixture(scope="module")
def weights(tiny):
    return load_file(tiny / "model.safetensors")


@pytest.fixture(scope="module")
def loaded(tiny):
    return load_folder(tiny).model.state_dict()


@pytest.fixture
def copy(tiny, tmp_path):
    """The tiny checkpoint without its weights."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("adapter_*", "*.safetensors", "*.png"))
    return folder


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


def save_safetensors(weights, folder):
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def save_pickle(weights, folder):
    torch.save(weights, folder / "pytorch_model.bin")


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
def test_weights_are_the_same_however_they_were_saved(copy, weights, loaded, save):
    save(weights, copy)
    checkpoint = load_folder(copy)
    assert checkpoint.layout is Layout.ORIGINAL
    assert checkpoint.saved_dtype is torch.float16
    assert checkpoint.model.lm_head.weight is checkpoint.model.get_input_embeddings().weight
    found = checkpoint.model.state_dict()
    assert found.keys() == loaded.keys()
    for name in found:
        if save is save_without_what_is_computed and name.endswith("pos_idx_to_embed"):
            continue  # the file's was computed in half precision
        assert torch.equal(found[name], loaded[name]), name


def test_temporal_positions_that_a_file_lacks_are_computed(tiny, copy, weights):
    save_without_what_is_computed(weights, copy)
    name = "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"
    computed = random_model(read_json(tiny / "config.json")).state_dict()[name]
    assert torch.equal(load_folder(copy).model.state_dict()[name], computed)


def test_a_fine_tune_that_saved_its_own_config_and_more_positions_is_served(original_layout_folder, tiny, tmp_path):
    config = read_json(original_layout_folder / "finetune-config" / "config.json")
    model = random_model(config)
    folder = tmp_path / "fine-tune"
    save_original(model, config, tiny, folder)
    assert_answers_are_generates(model, folder, fine_tuned_tokenizer(tiny), tiny / "scene0.png")


def test_a_fine_tunes_own_task_token_keeps_its_id_and_its_embedding(tiny, tmp_path):
    own = (AddedToken("<INVOICE>", special=True, normalized=False),)
    config = read_json(tiny / "config.json")
    model = random_model(config, vocabulary=51290)
    folder = tmp_path / "fine-tune"
    save_original(model, config, tiny, folder, own)
    tokenizer = fine_tuned_tokenizer(tiny, own)
    assert tokenizer.convert_tokens_to_ids("<INVOICE>") == 51289
    prompts = ("<INVOICE>What is the total?", "<OD>")
    assert_answers_are_generates(model, folder, tokenizer, tiny / "scene1.png", prompts)


@pytest.mark.parametrize("says_so", [True, False])
def test_an_output_layer_of_its_own_is_used(tiny, tmp_path, says_so):
    config = read_json(tiny / "config.json")
    model = random_model(config, tied=False)
    if says_so:
        config["text_config"]["tie_word_embeddings"] = False
    folder = tmp_path / "fine-tune"
    save_original(model, config, tiny, folder)
    assert_answers_are_generates(model, folder, fine_tuned_tokenizer(tiny), tiny / "scene0.png", ("<CAPTION>",))


def assert_answers_are_generates(model, folder, tokenizer, picture, prompts=("<OD>", "<CAPTION>")):
    with Served(folder, slots=2) as served:
        for prompt in prompts:
            for beams in (1, 3):
                sentence = expand_prompt(prompt)
                options = {"num_beams": beams, "max_new_tokens": 15}
                expected = generated(model, folder, tokenizer, picture, sentence, **options)
                assert served.tokens(picture.read_bytes(), prompt, **options) == expected


def test_generation_defaults_are_the_text_models(copy, weights):
    save_safetensors(weights, copy)
    assert read_json(copy / "generation_config.json") == {"num_beams": 3, "early_stopping": False}
    defaults = load_folder(copy).generation
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
def test_a_tokenizer_in_parts_gives_the_same_ids(tiny, copy, weights, own):
    whole = fine_tuned_tokenizer(tiny, tuple(own))
    added = {token: token_id for token, token_id in whole.get_added_vocab().items() if token_id >= 50265}
    save_tokenizer_parts(copy, added if own else {})
    table = torch.cat([weights[SHARED], torch.ones(len(own), 64, dtype=torch.float16)])
    save_safetensors({**weights, SHARED: table}, copy)
    tokenizer = load_folder(copy).tokenizer
    for text in ("Locate <loc_0><loc_999> ein grünes  Auto", "<and> partnumber <poly>", "<INVOICE>What is the total?"):
        assert tokenizer(text)["input_ids"] == whole(text)["input_ids"], text


def test_null_in_the_config_is_as_good_as_nothing(copy, weights):
    save_safetensors(weights, copy)
    nothing = {"max_position_embeddings": None, "tie_word_embeddings": None, "num_beams": None}
    set_in("text_config", **nothing, forced_eos_token_id=None)(copy, weights)
    set_in("vision_config", patch_prenorm=None)(copy, weights)
    set_in(None, quantization_config=None)(copy, weights)
    defaults = load_folder(copy).generation
    assert (defaults.positions.value, defaults.num_beams) == (1024, 1)
    assert defaults.forced_eos_token_id is None  # null forces nothing, unlike a field that is missing


def test_the_dtype_is_that_of_the_models_own_tensors(copy, weights):
    save_safetensors({**weights, "classifier.weight": torch.ones(2, 2)}, copy)
    assert load_folder(copy).saved_dtype is torch.float16


def test_float16_weights_are_served_in_float32_on_a_cpu(tiny):
    assert load_folder(tiny).model.dtype is torch.float32


def test_bin_weights_can_be_forbidden(copy, weights, caplog):
    save_pickle(weights, copy)
    load_folder(copy)
    assert "has .bin weights" in caplog.text
    with pytest.raises(CheckpointError, match=r"only \.bin weights, which FLORENCE2_SAFETENSORS_ONLY rejects"):
        load_folder(copy, safetensors_only=1)


def test_safetensors_are_preferred_to_bin_weights(copy, weights):
    save_safetensors(weights, copy)
    (copy / "pytorch_model.bin").write_bytes(b"not looked at")
    assert load_folder(copy, safetensors_only=1).files.weights == ("model.safetensors",)


class _Runs:
    """Touches a file if it is unpickled by a careless library."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_pickle_is_not_run(copy, weights, tmp_path):
    save_pickle({**weights, "evil": _Runs(tmp_path / "ran")}, copy)
    with pytest.raises(
        CheckpointError, match=r"pytorch_model.bin needs \w+\.open, but only tensors are loaded"
    ) as error:
        load_folder(copy)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_training_state_is_not_a_checkpoint(copy, weights):
    save_pickle({"epoch": 3, "model": weights}, copy)
    with pytest.raises(CheckpointError, match="holds type int under 'epoch', not only tensors"):
        load_folder(copy)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "part.bin"])
def test_an_index_does_not_lead_out_of_the_folder(copy, shard):
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {SHARED: shard}}))
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file beside it"):
        load_folder(copy)


def test_an_adapter_next_to_the_weights_is_named_and_not_applied(tiny, copy, weights, loaded, caplog):
    save_safetensors(weights, copy)
    for file in (tiny / "adapter_small").iterdir():
        shutil.copy(file, copy)
    found = load_folder(copy).model.state_dict()
    assert "adapter_model.safetensors is next to the weights, but it is not applied" in caplog.text
    assert all(torch.equal(found[name], loaded[name]) for name in found)


def test_an_adapter_alone_is_refused_with_advice(tiny):
    with pytest.raises(CheckpointError, match="a peft adapter, not a whole checkpoint: merge it") as error:
        load_folder(tiny / "adapter_notebook")
    assert "\n" not in str(error.value)


def set_in(section, **changes):
    def damage(folder, _):
        config = read_json(folder / "config.json")
        (config[section] if section else config).update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def bias_logits(_, weights):
    weights["language_model.final_logits_bias"] = torch.ones(1, 51289)


def leave_unmerged(_, weights):
    for name in list(weights):
        weights[f"base_model.model.{name}"] = weights.pop(name)


def shrink_vocabulary(_, weights):
    weights[SHARED] = weights[SHARED][:51000].clone()


def remove_embeddings(_, weights):
    del weights[SHARED]


def remove_preprocessor(folder, _):
    (folder / "preprocessor_config.json").unlink()


def remove_tokenizer(folder, _):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").unlink()


def set_in_preprocessor(**changes):
    def damage(folder, _):
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps({**read_json(path), **changes}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_in(None, model_type="llava"), "model_type: got 'llava', expected 'florence2'"),
        (set_in(None, quantization_config={"load_in_4bit": True}), "quantized weights are not supported"),
        (set_in("vision_config", projection_dim=32), "projection_dim: got 32, expected 64, as d_model"),
        (set_in("vision_config", image_feature_source=["last_frame"]), "image_feature_source: got"),
        (set_in("vision_config", visual_temporal_embedding={"type": "learned"}), "type: got 'learned'"),
        (
            set_in("text_config", max_position_embeddings=512),
            "got 512, expected at least 580, 577 of them for",
        ),
        (set_in("text_config", max_position_embeddings=2048), "2 mismatched_keys, e.g. .*embed_positions"),
        (bias_logits, "final_logits_bias is not zero"),
        (shrink_vocabulary, "'<and>' at id 51288, but the model has 51000 embeddings"),
        (remove_embeddings, "no token embeddings"),
        (leave_unmerged, "a peft model that was not merged: save it again after merge_and_unload"),
        (set_in("text_config", tie_word_embeddings=False), "tie_word_embeddings is false, but .* no lm_head.weight"),
        (remove_preprocessor, "preprocessor_config.json is missing"),
        (remove_tokenizer, "tokenizer.json is missing, and so are vocab.json and merges.txt"),
        (set_in_preprocessor(size={"shortest_edge": 768}), "size: got {'shortest_edge': 768}, expected height"),
        (set_in_preprocessor(size={"height": 768, "width": 2048}), "24 x 64 positions, expected 1 to 50"),
        (
            set_in_preprocessor(size={"height": 1024, "width": 1024}),
            "got 1024, expected at least 1028",
        ),
        (set_in_preprocessor(do_center_crop=True), "do_center_crop: got True, expected False"),
        (set_in_preprocessor(do_resize=False), "do_resize: got False, expected True"),
        (set_in_preprocessor(image_mean=[0.5]), r"image_mean: got \(0.5,\), expected a number for each"),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_refused_in_one_line(copy, weights, damage, message):
    weights = dict(weights)
    damage(copy, weights)
    save_safetensors(weights, copy)
    with pytest.raises(CheckpointError, match=message) as error:
        load_folder(copy)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)


def test_one_mean_for_all_channels_is_served(copy, weights):
    save_safetensors(weights, copy)
    set_in_preprocessor(image_mean=0.5, image_std=0.25)(copy, weights)
    processor = load_folder(copy).image_processor
    assert (processor.image_mean, processor.image_std) == ([0.5] * 3, [0.25] * 3)


def test_tensors_that_are_not_part_of_the_model_are_named(copy, weights, caplog):
    save_safetensors({**weights, "classifier.weight": torch.ones(2, 2)}, copy)
    load_folder(copy)
    assert "1 tensors are not part of Florence-2 and are ignored, e.g. classifier.weight" in caplog.text


def test_independently_written_names_are_those_of_the_file(tiny, weights):
    assert original_tensors(random_model(read_json(tiny / "config.json"))).keys() == weights.keys()
