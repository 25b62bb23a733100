"""Volumes, memory, and the sources of weights."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from florence2_server.config import AdmissionConfig, EngineConfig, text_bytes
from florence2_server.engine.checkpoint.files import find

from tests.conftest import DEMO_CHECKPOINT, ROOT
from tests.deploy.kubernetes.cases import COMMIT
from tests.deploy.kubernetes.rendering import Release
from tests.hub import Hub

pytestmark = pytest.mark.deploy
REPOSITORY = "microsoft/Florence-2-base-ft"
# A served model is three of Triton's: NAME, NAME_stream and NAME_health.
TRITON_MODELS = 3
# What Triton shares with each stub from the start (florence2_server/tritonserver.py).
POOL_BYTES = 16 << 20
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30, "mb": 1 << 20, "gb": 1 << 30}


def size(quantity: str) -> int:
    """The bytes of a quantity of Kubernetes or of a compose file."""
    number, unit = re.fullmatch(r"(\d+)(\w\w)", quantity).groups()
    return int(number) * UNITS[unit]


def limits_of(release: Release) -> dict[str, int]:
    """The bytes of the server's memory-backed volumes, by name."""
    return {each["name"]: size(each["emptyDir"]["sizeLimit"]) for each in release.pod["volumes"] if "emptyDir" in each}


def largest_request(model: str) -> int:
    """The number of images that one Triton request to a model may have."""
    config = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    return max(1, int(re.search(r"^max_batch_size: (\d+)", config, re.MULTILINE)[1]))


def test_mounts_and_volumes_match(release):
    volumes = [volume["name"] for volume in release.pod["volumes"]]
    assert len(volumes) == len(set(volumes))
    mounted = set()
    for container in [*release.pod.get("initContainers", []), *release.pod["containers"]]:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        mounted |= {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == set(volumes)


def test_writable_volumes_of_the_server_are_in_memory(release):
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


def test_volumes_and_containers_of_the_user_are_added(releases):
    pod, server = releases["additions"].pod, releases["additions"].server
    assert {"name": "certificates", "configMap": {"name": "authorities"}} in pod["volumes"]
    assert {"name": "certificates", "mountPath": "/certificates", "readOnly": True} in server["volumeMounts"]
    assert [each["name"] for each in pod["initContainers"]] == ["wait"]
    assert [each["name"] for each in pod["containers"]] == ["server", "proxy"]


def test_init_containers_of_the_user_find_the_weights(render):
    """They run after those that fetch them."""
    own = {"name": "check", "image": "example.com/check:1.2.3"}
    values = {"weights": {"source": "hub", "hub": {"revision": COMMIT}}, "extraInitContainers": [own]}
    assert [each["name"] for each in render(values).pod["initContainers"]] == ["weights", "check"]


def test_shared_memory_holds_the_largest_requests_that_triton_hands_over(release):
    """One at a time to each stub; what Triton shares with one may grow to twice the size of its largest request."""
    instances = max(1, release.values.get("gpu", {}).get("count", 1))
    images = [text_bytes(int(settings["FLORENCE2_MAX_IMAGE_BYTES"])) for settings in release.models]
    requests = sum(images) * (instances * largest_request("florence2") + largest_request("florence2_stream"))
    pools = len(images) * POOL_BYTES * (instances - 1 + TRITON_MODELS)
    assert limits_of(release)["shared-memory"] >= 2 * requests + pools


def test_shared_memory_follows_the_largest_image(releases):
    default, small = (limits_of(releases[case])["shared-memory"] for case in ("defaults", "small images, long queue"))
    assert (default, small) == (2 << 30, 256 << 20)
    assert limits_of(releases["two GPUs"])["shared-memory"] > 1.8 * default


def test_memory_is_that_of_processes_images_and_files(releases):
    for case, release in releases.items():
        if case == "given sizes":
            continue
        instances = max(1, release.values.get("gpu", {}).get("count", 1))
        files = limits_of(release)
        processes = size(release.values.get("processMemory", "5Gi")) * len(release.models)
        images = instances * sum(int(settings["FLORENCE2_QUEUE_BYTES"]) for settings in release.models)
        for container in release.containers:
            for kind in ("requests", "limits"):
                found = size(container["resources"][kind]["memory"])
                assert found == processes + images + files["shared-memory"] + files["temporary-files"], case


def test_given_sizes_take_precedence(releases):
    release = releases["given sizes"]
    assert limits_of(release)["shared-memory"] == 3 << 30
    resources = release.server["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("6Gi", "9Gi")


def test_the_compose_file_has_the_sizes_of_the_chart(releases):
    release = releases["defaults"]
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    for server in (services["server-cpu"], services["server-gpu"]):
        shared, memory = (server[name].split(":-")[1].removesuffix("}") for name in ("shm_size", "mem_limit"))
        assert size(shared) == limits_of(release)["shared-memory"]
        assert size(memory) == size(release.server["resources"]["limits"]["memory"])


def test_the_sizes_follow_the_servers_own_defaults(releases):
    environment = releases["defaults"].environment
    assert int(environment["FLORENCE2_MAX_IMAGE_BYTES"]) == EngineConfig.max_image_bytes
    assert int(environment["FLORENCE2_QUEUE_BYTES"]) == AdmissionConfig.queue_bytes


def checkpoints(release: Release) -> dict[str, str]:
    """The folders that the server is told to serve, by the model's name."""
    environment = release.environment
    if models := environment.get("FLORENCE2_MODELS"):
        assert "FLORENCE2_CHECKPOINT" not in environment
        return dict(each.split("=", 1) for each in models.split())
    return {"florence2": environment["FLORENCE2_CHECKPOINT"]}


def test_checkpoints_are_on_a_claim_or_filled_by_init_containers(release):
    source = release.values.get("weights", {}).get("source", "baked")
    if source == "baked":
        assert "weights" not in {volume["name"] for volume in release.pod["volumes"]}
        return
    (mount,) = [mount for mount in release.server["volumeMounts"] if mount["name"] == "weights"]
    folders = list(checkpoints(release).values())
    assert all(folder.startswith(f"{mount['mountPath']}/") for folder in folders)
    assert mount["readOnly"] is True
    if source == "pvc":
        assert "initContainers" not in release.pod
        return
    assert len(release.downloads) == len(folders)
    for init, folder in zip(release.downloads, folders, strict=True):
        assert {"name": "weights", "mountPath": "/weights"} in init["volumeMounts"]
        assert folder in [*init.get("command", []), *(each["value"] for each in init["env"])]


@pytest.mark.parametrize(
    ("source", "folders"),
    [
        ("baked", ["/models/captions", "/models/documents"]),
        ("hub", [f"/weights/owner--captions/{COMMIT}", f"/weights/owner--documents/{COMMIT}"]),
        ("claim", ["/weights/captions", "/weights/documents"]),
    ],
)
def test_models_are_named_with_their_folders_and_their_own_settings(releases, source, folders):
    release = releases[f"models, {source}"]
    assert checkpoints(release) == dict(zip(["captions", "documents-2"], folders, strict=True))
    own = release.environment["FLORENCE2_MODEL_SETTINGS"].split()
    assert sorted(own) == [
        "documents-2.objective_short_seconds=1.5",
        "documents-2.queue_bytes=1048576",
        "documents-2.slots=4",
        "documents-2.start_seconds=2400",
    ]


def test_each_model_has_its_own_source(releases):
    sources = [init["command"][2] for init in releases["models, hub"].downloads]
    assert sources == [f"owner/captions@{COMMIT}", f"owner/documents@{COMMIT}"]
    environments = [
        {each["name"]: each["value"] for each in init["env"]} for init in releases["models, store"].downloads
    ]
    assert [each["CHECKPOINT_URL"] for each in environments] == [":s3:models/captions", ":s3:models/documents"]


def test_a_checkpoint_of_two_models_is_fetched_once(render):
    """One with other settings, for example."""
    models = [{"name": name, "checkpoint": f"owner/one@{COMMIT}"} for name in ("fast", "exact")]
    release = render({"weights": {"source": "hub"}, "models": models})
    assert [init["name"] for init in release.downloads] == ["weights"]
    assert len(set(checkpoints(release).values())) == 1


def test_the_image_decides_the_folder_of_baked_weights(releases):
    assert "FLORENCE2_CHECKPOINT" not in releases["defaults"].environment
    assert releases["weights baked elsewhere"].environment["FLORENCE2_CHECKPOINT"] == "/models/florence"


@pytest.fixture
def fetch(render, tmp_path):
    """Runs the init container's command against a hub on loopback and returns the folder that it fills."""

    def run(hub: Hub, **settings) -> Path:
        values = {"source": "hub", "hub": {"id": REPOSITORY, "revision": COMMIT}}
        release = render({"weights": values, "settings": settings})
        (init,) = release.pod["initContainers"]
        assert init["image"] == release.server["image"]
        command, *arguments, folder = init["command"]
        assert command == "florence2-server"
        assert folder == release.environment["FLORENCE2_CHECKPOINT"]
        environment = {each["name"]: each["value"] for each in init["env"] if each["name"].startswith("FLORENCE2_")}
        subprocess.run(
            [sys.executable, "-m", "florence2_server", *arguments, tmp_path / "checkpoint"],
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


def test_the_init_container_rejects_pickled_weights_if_the_server_would(fetch, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(DEMO_CHECKPOINT, repository)
    (repository / "model.safetensors").rename(repository / "pytorch_model.bin")
    with Hub({REPOSITORY: repository}, commit=COMMIT) as hub, pytest.raises(subprocess.CalledProcessError) as error:
        fetch(hub, safetensors_only=1)
    assert b"FLORENCE2_SAFETENSORS_ONLY rejects" in error.value.stderr


def test_different_weights_get_different_folders(render):
    folders = {
        render({"weights": {"source": "objectStore", "objectStore": {"url": url}}}).environment["FLORENCE2_CHECKPOINT"]
        for url in ("s3://models/a", "s3://models/b")
    }
    assert len(folders) == 2


def test_only_the_server_container_gets_gpus(releases):
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
