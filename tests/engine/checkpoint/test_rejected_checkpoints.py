"""Checkpoints that cannot be served, and files that may be hostile: a one-line error, and no code is run."""

import json

import pytest
import torch
from florence2_server.engine.errors import CheckpointError

from tests.engine.checkpoint.folders import (
    SHARED,
    load_folder,
    save_pickle,
    save_safetensors,
    set_in,
    set_in_preprocessor,
)


def test_bin_weights_are_rejected_if_only_safetensors_are_allowed(tiny_copy, weights, caplog):
    save_pickle(weights, tiny_copy)
    load_folder(tiny_copy)
    assert "has .bin weights" in caplog.text
    with pytest.raises(CheckpointError, match=r"only \.bin weights, which FLORENCE2_SAFETENSORS_ONLY rejects"):
        load_folder(tiny_copy, safetensors_only=1)


class _Runs:
    """Creates a file when it is unpickled without restrictions."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_pickle_is_not_run(tiny_copy, weights, tmp_path):
    save_pickle({**weights, "evil": _Runs(tmp_path / "ran")}, tiny_copy)
    with pytest.raises(
        CheckpointError, match=r"pytorch_model.bin needs \w+\.open, but only tensors are loaded"
    ) as error:
        load_folder(tiny_copy)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_training_state_is_not_a_checkpoint(tiny_copy, weights):
    save_pickle({"epoch": 3, "model": weights}, tiny_copy)
    with pytest.raises(CheckpointError, match="holds type int under 'epoch', not only tensors"):
        load_folder(tiny_copy)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "part.bin"])
def test_an_index_must_not_lead_out_of_the_folder(tiny_copy, shard):
    (tiny_copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {SHARED: shard}}))
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file next to it"):
        load_folder(tiny_copy)


def test_an_adapter_alone_is_rejected_with_advice(tiny):
    with pytest.raises(
        CheckpointError, match="a peft adapter, not a whole checkpoint: serve it next to its base model"
    ) as error:
        load_folder(tiny / "adapter_notebook")
    assert "\n" not in str(error.value)


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
        (leave_unmerged, "an unmerged peft model: save it again after merge_and_unload"),
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
def test_a_checkpoint_that_cannot_be_served_is_rejected_in_one_line(tiny_copy, weights, damage, message):
    weights = dict(weights)
    damage(tiny_copy, weights)
    save_safetensors(weights, tiny_copy)
    with pytest.raises(CheckpointError, match=message) as error:
        load_folder(tiny_copy)
    assert str(tiny_copy) in str(error.value)
    assert "\n" not in str(error.value)
