"""`florence2-server check`, `convert` and `fetch`, as an operator runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from florence2_server import __version__
from florence2_server.checkpoint_commands import engine_config, main
from safetensors.torch import load_file, save_file

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.checkpoint.folders import edit_json
from tests.hub import COMMIT, Hub

TOKEN = "secret"  # noqa: S105 - made up
SERVED_FILES = {
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
}


def florence2_server(*arguments, **environment):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "florence2_server", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def facts(report: str) -> dict[str, str]:
    """Texts by label; a text of several lines as one."""
    found: dict[str, str] = {}
    column = report.index(report.splitlines()[0].split(maxsplit=1)[1])
    label = ""
    for line in report.splitlines()[:-1]:
        label = line[:column].strip() or label
        found[label] = f"{found.get(label, '')} {line[column:]}".strip()
    return found


@pytest.fixture
def check(capsys):
    """The exit status, the report's facts, and its last line."""

    def run(checkpoint):
        status = main(["check", str(checkpoint)])
        text = capsys.readouterr().out
        return status, facts(text), text.splitlines()[-1]

    return run


def test_check_of_the_demo_checkpoint():
    ran = florence2_server("check", DEMO_CHECKPOINT)
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[-1] == "can be served"
    found = facts(ran.stdout)
    weights = load_file(DEMO_CHECKPOINT / "model.safetensors")
    stored = sum(tensor.numel() for name, tensor in weights.items() if "pos_idx_to_embed" not in name)
    assert found["checkpoint"] == str(DEMO_CHECKPOINT)
    assert found["parameters"] == f"{stored:,}"
    assert found["layout"] == "native"
    assert found["saved dtype"] == "float16"
    assert found["served by"] == f"florence2-triton {__version__}"
    assert found["served dtype"] == "float32 on cpu"
    assert found["image"] == "128 x 128 pixels, 65 tokens"
    assert found["output layer"] == "tied to the embeddings"
    assert found["warnings"] == found["adapters"] == found["added tokens"] == "none"


def test_check_of_the_original_layout(check, original_layout_folder):
    status, found, last = check(original_layout_folder / "tiny")
    assert (status, last) == (0, "can be served")
    assert found["layout"] == "original"
    assert found["vocabulary"] == "51,289 embeddings, 51,289 tokens"
    assert found["image"] == "768 x 768 pixels, 577 tokens"
    assert found["adapters"] == "adapter_notebook/, adapter_small/, not applied"
    for option in ("num_beams=3", "early_stopping=True", "no_repeat_ngram_size=3"):
        assert option in found["generation"]
    assert "length_penalty" not in found["generation"]
    # Two layers, keys and values, 4 heads of 16 numbers of four bytes, for 16 slots and three beams for each of them.
    assert 2 * 2 * 4 * 16 * 4 * 1024 * (16 + 48) == 67_108_864
    assert found["cache memory"] == "67.1 MB for 16 slots and 48 beams"


def test_check_reports_warnings_from_loading(check, copy):
    weights = load_file(copy / "model.safetensors")
    torch.save({**weights, "head.weight": torch.zeros(2)}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    save_file({"a": torch.zeros(1)}, copy / "adapter_model.safetensors")
    edit_json(copy / "generation_config.json", eos_token_id=1)
    status, found, last = check(copy)
    assert (status, last) == (0, "can be served")
    assert found["weights"] == "pytorch_model.bin (.bin, read without running code)"
    assert found["adapters"] == "adapter_model.safetensors, not applied"
    for warning in ("FLORENCE2_SAFETENSORS_ONLY", "eos_token_id is 1, repaired to 2", "1 tensors", "adapter_model"):
        assert found["warnings"].count(warning) == 1


def test_check_reports_the_tokens_that_a_fine_tune_added(check, copy):
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    own = {**tokenizer["added_tokens"][-1], "id": 51290, "content": "<INVOICE>"}
    edit_json(copy / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], own])
    assert check(copy)[1]["added tokens"] == "<INVOICE>"


def test_check_uses_the_settings_from_the_environment(check, copy, monkeypatch):
    monkeypatch.setenv("FLORENCE2_DTYPE", "bfloat16")
    monkeypatch.setenv("FLORENCE2_SLOTS", "2")
    _, found, _ = check(copy)
    assert found["served dtype"] == "bfloat16 on cpu"
    assert found["cache memory"].endswith("for 2 slots and 8 beams")
    assert engine_config("x").rows == 0
    monkeypatch.setenv("FLORENCE2_ROWS", "24")
    assert check(copy)[1]["cache memory"].endswith("for 2 slots and 24 beams")
    monkeypatch.setenv("FLORENCE2_SAFETENSORS_ONLY", "1")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "FLORENCE2_SAFETENSORS_ONLY rejects" in check(copy)[2]


def test_check_reports_how_many_positions_are_used(check, copy, monkeypatch):
    assert check(copy)[1]["positions"] == "1,024 in the checkpoint, 1,024 used (the checkpoint's positions)"
    cache = check(copy)[1]["cache memory"]
    monkeypatch.setenv("FLORENCE2_POSITIONS", "512")
    found = check(copy)[1]
    assert found["positions"] == "1,024 in the checkpoint, 512 used (FLORENCE2_POSITIONS)"
    assert float(found["cache memory"].split()[0]) * 2 == pytest.approx(float(cache.split()[0]), rel=0.01)
    monkeypatch.setenv("FLORENCE2_POSITIONS", "18")
    assert check(copy)[2].startswith("cannot be served: FLORENCE2_POSITIONS: got 18, expected at least 20")


def test_check_reports_the_generation_rules_of_the_checkpoint(check, copy):
    edit_json(copy / "generation_config.json", repetition_penalty=1.5, bad_words_ids=[[5, 6]], do_sample=True)
    _, found, _ = check(copy)
    assert "repetition_penalty=1.5" in found["generation"]
    assert "bad_words=((5, 6),)" in found["generation"]
    assert "do_sample" in found["warnings"]
    edit_json(copy / "generation_config.json", guidance_scale=3)
    assert "guidance_scale" in check(copy)[2]


def test_check_of_a_checkpoint_that_cannot_be_served_ends_with_the_reason(check, copy):
    edit_json(copy / "config.json", vision_config={"model_type": "florence_vision", "projection_dim": 48})
    status, found, last = check(copy)
    assert status == 1
    assert last.startswith("cannot be served: config.json: vision_config.projection_dim: got 48")
    assert found["weights"] == "model.safetensors (safetensors)"
    assert "warnings" not in found


def test_check_of_a_missing_checkpoint(check):
    status, found, last = check("no-such-folder")
    assert status == 1
    assert found == {"checkpoint": "no-such-folder"}
    assert last == "cannot be served: no such folder, and not a hub id (owner/name or owner/name@revision)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_check_for_a_missing_device_fails(check, copy, monkeypatch):
    monkeypatch.setenv("FLORENCE2_DEVICE", "cuda")
    status, found, last = check(copy)
    assert status == 1
    assert found["served dtype"] == "bfloat16 on cuda"
    assert last.startswith("cannot be served: device: got 'cuda'")


def test_an_invalid_setting_is_named():
    ran = florence2_server("check", DEMO_CHECKPOINT, FLORENCE2_SLOTS="many")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "error: slots: got 'many', expected a whole number\n"


def test_convert_does_not_overwrite_a_folder(random_checkpoint, tmp_path, capsys):
    folder = tmp_path / "converted"
    assert main(["convert", str(random_checkpoint), str(folder)]) == 0
    assert (folder / "model.safetensors").is_file()
    assert main(["convert", str(random_checkpoint), str(folder)]) == 1
    assert capsys.readouterr().err.endswith("it is not overwritten\n")


@pytest.fixture
def repository(tmp_path):
    """What a hub holds: the demo checkpoint, and much that serving does not read."""
    folder = tmp_path / "repository"
    shutil.copytree(DEMO_CHECKPOINT, folder)
    for name in ("README.md", "pytorch_model.bin", "modeling_florence2.py", "onnx/model.onnx", "optimizer.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not read")
    return folder


def served_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and path.name != "fetched.json"}


def test_fetch_downloads_what_serving_needs_and_check_passes(repository, tmp_path, check):
    folder = tmp_path / "fetched"
    with Hub({"owner/name": repository}) as hub:
        ran = florence2_server("fetch", "owner/name", folder, **hub.environment(tmp_path / "home"))
        assert ran.returncode == 0, ran.stderr
        assert sorted(hub.downloaded) == sorted(SERVED_FILES)
    assert served_files(folder) == SERVED_FILES
    assert COMMIT in ran.stderr
    assert check(folder)[0] == 0


def test_check_and_convert_of_a_name_on_the_hub(repository, tmp_path):
    with Hub({"owner/name": repository}) as hub:
        environment = hub.environment(tmp_path / "home")
        checked = florence2_server("check", "owner/name@main", **environment)
        converted = florence2_server("convert", "owner/name", tmp_path / "converted", **environment)
    assert checked.returncode == 0, checked.stderr
    found = facts(checked.stdout)
    assert (found["checkpoint"], found["revision"]) == ("owner/name@main", COMMIT)
    assert converted.returncode == 0, converted.stderr
    weights, source = (load_file(folder / "model.safetensors") for folder in (tmp_path / "converted", repository))
    assert all(torch.equal(weights[name], tensor) for name, tensor in source.items())


def test_fetch_skips_existing_files_and_needs_no_hub_for_a_commit(repository, tmp_path):
    folder, name = tmp_path / "fetched", f"owner/name@{COMMIT}"
    with Hub({"owner/name": repository}) as hub:
        environment = hub.environment(tmp_path / "home")
        assert florence2_server("fetch", name, folder, **environment).returncode == 0
        (folder / "config.json").unlink()
        hub.downloaded.clear()
        assert florence2_server("fetch", name, folder, **environment).returncode == 0
        assert hub.downloaded == ["config.json"]
        hub.requests.clear()
        assert florence2_server("fetch", name, folder, **environment).returncode == 0
        assert hub.requests == []


def test_fetch_of_a_branch_follows_it_and_keeps_the_folder_if_the_hub_is_unreachable(repository, tmp_path):
    folder, later = tmp_path / "fetched", "f" * 40
    with Hub({"owner/name": repository}) as hub:
        environment = hub.environment(tmp_path / "home")
        assert florence2_server("fetch", "owner/name", folder, **environment).returncode == 0
        (repository / "model.safetensors").unlink()
        shutil.copy(DEMO_CHECKPOINT / "model.safetensors", repository / "model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
        (repository / "model.safetensors.index.json").write_text(json.dumps(index))
        hub.commits["main"] = later
        assert florence2_server("fetch", "owner/name", folder, **environment).returncode == 0
        sharded = {"model-00001-of-00001.safetensors", "model.safetensors.index.json"}
        assert served_files(folder) == SERVED_FILES - {"model.safetensors"} | sharded
        hub.failure = 503
        away = florence2_server("fetch", "owner/name", folder, **environment)
    assert away.returncode == 0
    assert f"stays at revision {later}" in away.stderr


def test_fetch_of_pickled_weights_unless_they_are_rejected(repository, tmp_path):
    (repository / "model.safetensors").unlink()
    with Hub({"owner/name": repository}) as hub:
        environment = hub.environment(tmp_path / "home")
        rejected = florence2_server(
            "fetch", "owner/name", tmp_path / "a", **environment, FLORENCE2_SAFETENSORS_ONLY="1"
        )
        assert rejected.returncode == 1
        assert "FLORENCE2_SAFETENSORS_ONLY rejects" in rejected.stderr.splitlines()[-1]
        assert hub.downloaded == []
        assert florence2_server("fetch", "owner/name", tmp_path / "a", **environment).returncode == 0
        assert "pytorch_model.bin" in hub.downloaded
        held = florence2_server("fetch", "owner/name", tmp_path / "a", **environment, FLORENCE2_SAFETENSORS_ONLY="1")
        assert held.returncode == 1


def test_fetch_of_a_private_repository_needs_the_token(repository, tmp_path):
    with Hub({"owner/name": repository}, token=TOKEN) as hub:
        environment = hub.environment(tmp_path / "home")
        rejected = florence2_server("fetch", "owner/name", tmp_path / "a", **environment)
        assert rejected.returncode == 1
        assert rejected.stderr.splitlines()[-1].endswith("or it needs HF_TOKEN")
        assert florence2_server("fetch", "owner/name", tmp_path / "a", **environment, HF_TOKEN=TOKEN).returncode == 0


def test_fetch_into_a_folder_that_holds_another_checkpoint_is_rejected(repository, tmp_path):
    with Hub({"owner/name": repository, "owner/other": repository}) as hub:
        environment = hub.environment(tmp_path / "home")
        assert florence2_server("fetch", "owner/name", tmp_path / "a", **environment).returncode == 0
        rejected = florence2_server("fetch", "owner/other", tmp_path / "a", **environment)
    assert rejected.returncode == 1
    assert rejected.stderr.splitlines()[-1].endswith("/a already holds owner/name")


def test_simultaneous_fetches_leave_one_complete_checkpoint(repository, tmp_path):
    folder = tmp_path / "shared"
    command = [sys.executable, "-m", "florence2_server", "fetch", "owner/name", folder]
    with Hub({"owner/name": repository}) as hub:
        homes = [tmp_path / "one", tmp_path / "other"]
        fetches = [subprocess.Popen(command, env={**os.environ, **hub.environment(home)}) for home in homes]
        assert [each.wait(60) for each in fetches] == [0, 0]
    assert served_files(folder) == SERVED_FILES
    for name in SERVED_FILES:
        assert (folder / name).read_bytes() == (DEMO_CHECKPOINT / name).read_bytes()
