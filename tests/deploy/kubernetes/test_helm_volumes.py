"""Volumes, and where weights come from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from florence2_engine.checkpoint.files import find

from tests.conftest import DEMO_CHECKPOINT, ROOT
from tests.deploy.kubernetes.rendering import COMMIT
from tests.hub import Hub

pytestmark = pytest.mark.deploy
REPOSITORY = "microsoft/Florence-2-base-ft"


def test_every_mount_has_its_volume_and_every_volume_a_mount(release):
    volumes = [volume["name"] for volume in release.pod["volumes"]]
    assert len(volumes) == len(set(volumes))
    mounted = set()
    for container in release.containers:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        mounted |= {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == set(volumes)


def test_what_the_server_writes_to_lies_in_memory(release):
    volumes = {volume["name"]: volume for volume in release.pod["volumes"]}
    writable = {
        mount["mountPath"]: volumes[mount["name"]]
        for mount in release.server["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert set(writable) == {"/tmp", "/dev/shm"}  # noqa: S108
    for volume in writable.values():
        assert volume["emptyDir"]["medium"] == "Memory"
        assert volume["emptyDir"]["sizeLimit"]


def test_the_checkpoint_lies_on_a_volume_that_somebody_fills(release):
    source = release.values.get("weights", {}).get("source", "baked")
    if source == "baked":
        assert "weights" not in {volume["name"] for volume in release.pod["volumes"]}
        return
    checkpoint = release.environment["FLORENCE2_CHECKPOINT"]
    (mount,) = [mount for mount in release.server["volumeMounts"] if mount["name"] == "weights"]
    assert checkpoint.startswith(f"{mount['mountPath']}/")
    assert mount["readOnly"] is True
    if source == "pvc":
        assert "initContainers" not in release.pod
        return
    (init,) = release.pod["initContainers"]
    assert {"name": "weights", "mountPath": "/weights"} in init["volumeMounts"]
    told = [*init.get("command", []), *(each["value"] for each in init["env"])]
    assert any(checkpoint in each for each in told)


def test_baked_weights_are_the_images_business(releases):
    assert "FLORENCE2_CHECKPOINT" not in releases["defaults"].environment
    assert releases["weights baked elsewhere"].environment["FLORENCE2_CHECKPOINT"] == "/models/florence"


@pytest.fixture
def fetch(render, tmp_path):
    """Runs the init container's command here, against a hub on loopback, and returns the folder it fills."""

    def run(hub: Hub, **settings) -> Path:
        values = {"source": "hub", "hub": {"id": REPOSITORY, "revision": COMMIT}}
        release = render({"weights": values, "settings": settings})
        (init,) = release.pod["initContainers"]
        assert init["image"] == release.server["image"]
        python, script, *arguments, folder = init["command"]
        assert (python, script) == ("python", "/opt/florence2/model_repository/serve.py")
        assert folder == release.environment["FLORENCE2_CHECKPOINT"]
        environment = {each["name"]: each["value"] for each in init["env"] if each["name"].startswith("FLORENCE2_")}
        subprocess.run(
            [sys.executable, ROOT / "model_repository" / "serve.py", *arguments, tmp_path / "checkpoint"],
            env={**os.environ, **environment, **hub.environment(tmp_path / "home")},
            check=True,
            capture_output=True,
            timeout=60,
        )
        return tmp_path / "checkpoint"

    return run


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_checkpoint_in_the_original_layout_comes_from_the_hub(fetch, original_layout_folder, tmp_path, weights):
    repository = tmp_path / "repository"
    shutil.copytree(original_layout_folder / "tiny", repository, ignore=shutil.ignore_patterns("adapter_*", "*.png"))
    (repository / "model.safetensors").rename(repository / weights)
    (repository / "modeling_florence2.py").write_text("raise SystemExit('ran')")
    with Hub({REPOSITORY: repository}, commit=COMMIT) as hub:
        folder = fetch(hub)
        assert "modeling_florence2.py" not in hub.downloaded
    assert (folder / weights).read_bytes() == (repository / weights).read_bytes()
    assert find(str(folder), safetensors_only=False).weights == (weights,)


def test_pickled_weights_are_refused_before_the_server_starts_if_it_would_refuse_them(fetch, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(DEMO_CHECKPOINT, repository)
    (repository / "model.safetensors").rename(repository / "pytorch_model.bin")
    with Hub({REPOSITORY: repository}, commit=COMMIT) as hub, pytest.raises(subprocess.CalledProcessError) as error:
        fetch(hub, safetensors_only=1)
    assert b"FLORENCE2_SAFETENSORS_ONLY rejects" in error.value.stderr


def test_other_weights_get_another_folder(render):
    folders = {
        render({"weights": {"source": "objectStore", "objectStore": {"url": url}}}).environment["FLORENCE2_CHECKPOINT"]
        for url in ("s3://models/a", "s3://models/b")
    }
    assert len(folders) == 2


def test_only_the_server_gets_gpus(releases):
    assert releases["defaults"].server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert releases["two GPUs"].server["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert releases["example h100-mig"].server["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    for case, release in releases.items():
        wants = release.values.get("gpu", {}).get("count", 1) > 0
        has = any("nvidia.com/" in name for name in release.server["resources"]["limits"])
        assert has == wants, case
        assert release.environment["FLORENCE2_REQUIRE_GPU"] == str(int(wants)), case
        assert (release.environment.get("NVIDIA_VISIBLE_DEVICES") == "void") != wants, case
        for init in release.pod.get("initContainers", []):
            assert not any("nvidia.com/" in name for name in init["resources"]["limits"]), case
