"""How adapters get into pods: a volume, its folders, and the settings that name them."""

import pytest

from tests.deploy.kubernetes.rendering import Object, Release

pytestmark = pytest.mark.deploy

FOLDER = "/adapters"


def volume_of(release: Release) -> Object | None:
    """The pod's volume of adapters, or None."""
    found = [each for each in release.pod["volumes"] if each["name"] == "adapters"]
    return found[0] if found else None


def test_the_servers_mount_is_read_only_wherever_there_is_a_volume(release):
    mounts = [each for each in release.server["volumeMounts"] if each["name"] == "adapters"]
    has_volume = volume_of(release) is not None
    assert mounts == ([{"name": "adapters", "mountPath": FOLDER, "readOnly": True}] if has_volume else [])
    assert has_volume == bool(release.values.get("adapters")), "only where values ask for it"


def test_the_volume_is_a_claim_or_any_other(releases):
    claim = {"name": "adapters", "persistentVolumeClaim": {"claimName": "adapters", "readOnly": True}}
    assert volume_of(releases["adapters on a claim"]) == volume_of(releases["models, adapters"]) == claim
    nfs = {"server": "files.example.com", "path": "/exports"}
    assert volume_of(releases["adapters in a folder of another volume"]) == {"name": "adapters", "nfs": nfs}


@pytest.mark.parametrize(
    ("case", "folder"),
    [
        ("adapters on a claim", FOLDER),
        ("adapters in a folder of another volume", f"{FOLDER}/base-ft/live"),
        ("adapters in the image", "invoices=/models/invoices,tags=/models/tags"),
        ("defaults", None),
        ("models, adapters", None),
    ],
)
def test_the_server_is_told_the_folder(releases, case, folder):
    assert releases[case].environment.get("FLORENCE2_ADAPTERS") == folder


def test_each_model_has_a_folder_of_its_own_or_no_adapters(releases):
    assert (
        releases["models, adapters"].environment["FLORENCE2_MODEL_SETTINGS"] == f"captions.adapters={FOLDER}/captions"
    )


def test_a_models_adapters_do_not_replace_its_settings(render):
    own = {"name": "captions", "checkpoint": "/models/captions", "adapters": "one", "settings": {"slots": 4}}
    release = render({"adapters": {"claimName": "adapters"}, "models": [own]})
    settings = release.environment["FLORENCE2_MODEL_SETTINGS"].split()
    assert settings == ["captions.slots=4", f"captions.adapters={FOLDER}/one"]


def test_an_init_container_of_the_user_can_fill_the_volume(render):
    """Only the server's own mount is read-only."""
    mount = {"name": "adapters", "mountPath": FOLDER}
    fill = {"name": "fetch-adapters", "image": "example.com/fetch:1.2.3", "volumeMounts": [mount]}
    release = render({"adapters": {"volume": {"emptyDir": {"sizeLimit": "1Gi"}}}, "extraInitContainers": [fill]})
    assert volume_of(release) == {"name": "adapters", "emptyDir": {"sizeLimit": "1Gi"}}
    assert release.pod["initContainers"][0]["volumeMounts"] == [mount]
    assert release.environment["FLORENCE2_ADAPTERS"] == FOLDER
