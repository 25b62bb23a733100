"""The model's configuration, read with Triton's own schema."""

from florence2_server.repository import REPOSITORY
from florence2_server.tritonserver import has_gpu
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

MODEL = REPOSITORY / "florence2"


def read(path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_one_config_serves_machines_with_and_without_gpus():
    (group,) = read(MODEL / "config.pbtxt").instance_group
    assert (group.kind, group.count) == (model_config_pb2.ModelInstanceGroup.KIND_AUTO, 1)


def test_on_this_machine_the_instance_is_of_its_kind(plain_client):
    (group,) = plain_client.get_model_config("florence2").config.instance_group
    kinds = model_config_pb2.ModelInstanceGroup
    assert group.kind == (kinds.KIND_GPU if has_gpu() else kinds.KIND_CPU)


def test_triton_hands_over_requests_one_by_one():
    # With a batcher, requests whose tensors are cut short make others fail; with its queue policies, it waits.
    assert not read(MODEL / "config.pbtxt").HasField("dynamic_batching")
