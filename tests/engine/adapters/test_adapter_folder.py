"""Adapters by name: a folder, or downloaded from a hub on loopback."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from florence2_server.engine.adapters.adapter_folder import find_adapter
from florence2_server.engine.errors import AdapterError

from tests.hub import COMMIT, Hub

NAME = "owner/adapter"
# In a separate process: `huggingface_hub` reads its environment when it is imported.
FIND = """
import json, sys
from florence2_server.engine.adapters.adapter_folder import find_adapter
from florence2_server.engine.errors import AdapterError
try:
    folder = find_adapter(sys.argv[1], safetensors_only=False)
except AdapterError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"folder": str(folder), "there": sorted(path.name for path in folder.iterdir())}))
"""


@pytest.fixture
def repository(tiny, tmp_path):
    """A repository like those that peft writes, with files that serving does not need."""
    folder = tmp_path / "repository"
    shutil.copytree(tiny / "adapter_small", folder)
    (folder / "adapter_model.bin").write_bytes(b"weights again")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("Fine-tuned.")
    return folder


@pytest.fixture
def find(tmp_path):
    def find(name: str, hub: Hub | None = None, **environment: str) -> dict:
        """The result of `find_adapter` in a separate process, with its cache in tmp_path."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        reached = hub.environment(tmp_path / "home") if hub else {"HF_HOME": str(tmp_path / "home")}
        run = subprocess.run(
            [sys.executable, "-c", FIND, name],
            env={**plain, **reached, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        found: dict = json.loads(run.stdout)
        return found

    return find


def test_only_the_files_of_an_adapter_are_downloaded_and_found_again_without_the_hub(repository, find):
    with Hub({NAME: repository}, branches={"v1": COMMIT}) as hub:
        found = find(f"{NAME}@v1", hub)
        assert sorted(hub.downloaded) == ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    assert found["there"] == sorted(hub.downloaded)
    assert f"/{COMMIT}" in found["folder"]
    assert find(f"{NAME}@v1", HF_HUB_OFFLINE="1") == found


def test_a_repository_of_a_whole_checkpoint_is_an_error_and_nothing_is_downloaded(repository, find):
    (repository / "adapter_config.json").rename(repository / "config.json")
    with Hub({NAME: repository}) as hub:
        assert find(NAME, hub)["error"] == (
            f"adapter '{NAME}': adapter_config.json is missing, but there is a config.json: "
            "serve a whole checkpoint with FLORENCE2_CHECKPOINT"
        )
        assert list(hub.downloaded) == []


def test_a_folder_takes_precedence_over_the_hub(find, tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    with Hub({}) as hub:
        assert find(NAME, hub)["folder"] == NAME
        assert hub.requests == []


def test_what_is_neither_is_an_error_in_one_line(find):
    assert find("/nowhere")["error"] == (
        "adapter '/nowhere': no such folder, and not a hub id (owner/name or owner/name@revision)"
    )
    with Hub({}) as hub:
        assert find(NAME, hub)["error"].startswith(f"adapter '{NAME}': no such folder, and no such repository")


@pytest.mark.parametrize("source", ["/" + "x" * 300, "x/" * 5000, "a\0b"])
def test_what_cannot_be_a_path_is_an_error_of_one_line(source):
    with pytest.raises(AdapterError, match="no such folder, and not a hub id"):
        find_adapter(source, safetensors_only=False)
