"""Checkpoints by name: found and downloaded from a hub on loopback, or taken from the cache."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hub import COMMIT, Hub

NAME = "owner/florence"
TOKEN = "secret"  # noqa: S105
# In a separate process: `huggingface_hub` reads its environment when it is imported.
FIND = """
import json, logging, sys
logging.basicConfig(level=logging.INFO)
from florence2_server.engine.checkpoint.files import find
from florence2_server.engine.errors import CheckpointError
try:
    files = find(sys.argv[1], safetensors_only=False)
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
else:
    there = sorted(path.name for path in files.folder.iterdir())
    found = {"revision": files.revision, "weights": files.weights, "adapters": files.adapters, "there": there}
    print(json.dumps(found))
"""


@pytest.fixture
def repository(original_layout_folder, tmp_path):
    """A repository like that of a fine-tune: weights in both formats, code, and other files."""
    folder = tmp_path / "repository"
    shutil.copytree(original_layout_folder / "tiny", folder, ignore=shutil.ignore_patterns("adapter_*", "*.png"))
    (folder / "pytorch_model.bin").write_bytes(b"weights again")
    (folder / "modeling_florence2.py").write_text("raise SystemExit('ran')")
    (folder / "adapter_model.safetensors").write_bytes(b"an adapter")
    (folder / "runs").mkdir()
    (folder / "runs" / "events").write_bytes(b"logs")
    (folder / "README.md").write_text("Fine-tuned.")
    return folder


@pytest.fixture
def find(tmp_path):
    def find(name: str, hub: Hub | None, **environment: str) -> dict:
        """The result of `find` in a separate process, with its cache in tmp_path."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        reached = hub.environment(tmp_path / "home") if hub else {"HF_HOME": str(tmp_path / "home")}
        run = subprocess.run(
            [sys.executable, "-c", FIND, name],
            env={**plain, **reached, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        return {"log": run.stderr, **json.loads(run.stdout)}

    return find


def test_only_files_that_are_read_are_downloaded_with_weights_in_one_format(repository, find):
    with Hub({NAME: repository}) as hub:
        found = find(NAME, hub)
    read = ["config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"]
    assert found["there"] == [*read, "tokenizer.json", "tokenizer_config.json"]
    assert sorted(hub.downloaded) == found["there"]
    assert found["weights"] == ["model.safetensors"]
    assert found["adapters"] == ["adapter_model.safetensors"]
    assert found["revision"] == COMMIT


def test_shards_of_bin_weights_are_downloaded_if_there_are_no_others(repository, find):
    weights = load_file(repository / "model.safetensors")
    (repository / "model.safetensors").unlink()
    (repository / "pytorch_model.bin").unlink()
    names = list(weights)
    shards = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: weights[name] for name in part}, repository / file)
    index = {name: file for file, part in shards.items() for name in part}
    (repository / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    (repository / "optimizer.bin").write_bytes(b"of the training")
    with Hub({NAME: repository}) as hub:
        assert sorted(find(NAME, hub)["weights"]) == list(shards)
    assert "optimizer.bin" not in hub.downloaded
    assert {*shards, "pytorch_model.bin.index.json"} <= set(hub.downloaded)


def test_the_parts_of_a_tokenizer_are_downloaded_if_there_is_no_tokenizer_json(repository, find):
    (repository / "tokenizer.json").unlink()
    (repository / "merges.txt").write_text("#version: 0.2\n")
    with Hub({NAME: repository}) as hub:
        assert {"vocab.json", "merges.txt"} <= set(find(NAME, hub)["there"])


def test_a_branch_is_resolved_to_its_commit(repository, find):
    tuned = "ab" * 20
    with Hub({NAME: repository}, branches={"tuned": tuned}) as hub:
        assert find(f"{NAME}@tuned", hub)["revision"] == tuned
        assert find(f"{NAME}@{tuned}", hub)["revision"] == tuned
        assert "no revision 'gone'" in find(f"{NAME}@gone", hub)["error"]


def test_a_downloaded_checkpoint_is_found_without_the_hub(repository, find):
    with Hub({NAME: repository}) as hub:
        there = find(NAME, hub)["there"]
        requests = len(hub.requests)
        offline = find(NAME, hub, HF_HUB_OFFLINE="1")
        assert len(hub.requests) == requests
        assert (offline["revision"], offline["there"]) == (COMMIT, there)
        assert "HF_HUB_OFFLINE is set" in offline["log"]
        hub.failure = 503
        assert find(NAME, hub)["there"] == there
    unreachable = find(NAME, hub)
    assert unreachable["there"] == there
    assert "is served from the cache" in unreachable["log"]


def test_a_checkpoint_that_was_never_downloaded_is_an_error_without_the_hub(repository, find):
    with Hub({NAME: repository}) as hub:
        assert "it is not in the cache" in find(NAME, hub, HF_HUB_OFFLINE="1")["error"]
    error = find(NAME, hub)["error"]
    assert "not in the cache, and it cannot be downloaded: ConnectError" in error
    assert "\n" not in error


def test_an_interrupted_download_is_an_error_without_the_hub(repository, find, tmp_path):
    """Without its generation config a checkpoint would silently follow other rules."""
    with Hub({NAME: repository}) as hub:
        find(NAME, hub)
    (snapshot,) = (tmp_path / "home").rglob("snapshots/*")
    (snapshot / "generation_config.json").unlink()
    assert "only part of it is in the cache" in find(NAME, hub)["error"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_after_a_transient_status_the_cache_is_used(repository, find, status):
    with Hub({NAME: repository}) as hub:
        there = find(NAME, hub)["there"]
        hub.failure = status
        assert find(NAME, hub)["there"] == there


def test_a_hub_that_accepts_connections_but_never_responds_times_out(repository, find):
    with Hub({NAME: repository}) as hub:
        there = find(NAME, hub)["there"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = find(NAME, None, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert found["there"] == there
    assert "ReadTimeout" in found["log"]


def test_a_private_repository_needs_the_token(repository, find):
    with Hub({NAME: repository}, token=TOKEN) as hub:
        assert "needs HF_TOKEN" in find(NAME, hub)["error"]
        assert find(NAME, hub, HF_TOKEN=TOKEN)["revision"] == COMMIT
    with Hub({NAME: repository}, token=TOKEN, gated=[NAME]) as hub:
        assert "access is restricted" in find(NAME, hub, HF_TOKEN=TOKEN, HF_HOME=str(repository / "home"))["error"]


def test_an_unknown_repository_is_named(find, tmp_path):
    with Hub({}) as hub:
        assert "no such repository on the hub" in find("owner/nothing", hub)["error"]
    for name in ("florence", "../checkpoint", "a/b/c", str(tmp_path / "gone"), "owner/name@"):
        assert "no such folder, and not a hub id (owner/name" in find(name, None)["error"]


def test_weight_files_with_unknown_names_are_listed(repository, find):
    (repository / "pytorch_model.bin").unlink()
    save_file(load_file(repository / "model.safetensors"), repository / "florence2.safetensors")
    (repository / "model.safetensors").unlink()
    with Hub({NAME: repository}) as hub:
        assert "is missing (found adapter_model.safetensors, florence2.safetensors)" in find(NAME, hub)["error"]
    assert hub.downloaded == []
