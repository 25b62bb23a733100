"""A local Ray, moto's S3 over HTTP on loopback, and servers, for `make test-bulk`."""

import json
import os
import shutil
import tempfile

import pytest

from tests.bulk.kills import draw_scenes
from tests.reference import png
from tests.server.conftest import server_starter
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

BUCKET = "photos"
OBJECT_STORE_BYTES = 100 * 2**20
CPUS = 2


@pytest.fixture(scope="session")
def start_server(tmp_path_factory):
    """As that of `tests/server`."""
    with server_starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def server(start_server):
    """The server as the repository ships it."""
    return start_server()


@pytest.fixture(scope="session")
def storage():
    """A client of moto's S3, whose address all processes of this session find in their environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = moto.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "moto")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        try:
            yield client
        finally:
            moto.stop()


@pytest.fixture(scope="session")
def cluster(storage):  # noqa: ARG001 - Ray's workers have its address in their environment
    """A Ray on this machine, stopped at the end. The value is its address."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: it contains sockets
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        import ray

        try:
            ray.init(
                num_cpus=CPUS,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Scenes of the demo checkpoint."""
    return [png(draw(sample_scene(seed)).resize((64, 64))) for seed in range(60)]


@pytest.fixture(scope="session")
def bucket(storage, tmp_path_factory):
    """200 scenes and a file that is not an image, in a bucket and in a folder. The value is the folder."""
    folder = draw_scenes(tmp_path_factory.mktemp("scenes"), 200)
    (folder / "0" / "broken.png").write_bytes(b"not an image")
    for path in sorted(folder.rglob("*.png")):
        storage.upload_file(str(path), BUCKET, f"scenes/{path.relative_to(folder)}")
    return folder


def without_scores(value):
    """A result as JSON text without its scores, whose last digits depend on what else the engine decodes."""
    return _plain(json.loads(value) if isinstance(value, str) else value)


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if "score" not in name and "likelihood" not in name}
    return [_plain(each) for each in value] if isinstance(value, list) else value
