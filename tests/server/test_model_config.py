"""Both model configurations, read with Triton's own schema."""

from google.protobuf import text_format
from serve import REPOSITORY
from tritonclient.grpc import model_config_pb2

MODEL = REPOSITORY / "florence2"


def read(path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_the_cpu_config_differs_in_the_kind_of_its_instances_alone():
    gpu, cpu = read(MODEL / "config.pbtxt"), read(MODEL / "configs" / "cpu.pbtxt")
    assert gpu.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert cpu.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    cpu.instance_group[0].kind = gpu.instance_group[0].kind
    assert cpu == gpu


def test_the_queue_is_bounded_and_its_timeout_is_the_callers():
    batching = read(MODEL / "config.pbtxt").dynamic_batching
    assert batching.priority_levels == 3
    assert batching.default_queue_policy.max_queue_size > 0
    assert batching.default_queue_policy.allow_timeout_override
