"""Volumes, and where weights come from."""

import os
import subprocess
import sys

import pytest

from tests.deploy.kubernetes.rendering import COMMIT

pytestmark = pytest.mark.deploy


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


def test_the_hubs_command_is_one(releases, tmp_path):
    """Everything is right for the huggingface_hub that the image has too, but that there is no network."""
    release = releases["weights from the hub"]
    (init,) = release.pod["initContainers"]
    assert init["image"] == release.server["image"]
    assert f"--revision={COMMIT}" in init["command"]
    program, *arguments = init["command"]
    assert program == "hf"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from huggingface_hub.cli.hf import main; main()",
            *arguments,
            f"--local-dir={tmp_path}",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "offline" in f"{done.stdout}{done.stderr}".lower()


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
