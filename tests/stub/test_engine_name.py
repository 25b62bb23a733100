"""Names of engines, from what Triton 2.51 passes to `initialize`."""

import pytest
from florence2_server.stub.engine_name import engine_name


@pytest.mark.parametrize(
    ("instance", "kind", "device", "name"),
    [
        ("florence2_0_0", "CPU", "0", "0"),
        ("florence2_0_1", "CPU", "0", "1"),
        ("florence2_0_0", "GPU", "0", "0"),
        ("florence2_0_0", "GPU", "1", "1"),
        ("florence2_0_1", "GPU", "1", "1-1"),
        ("florence2_1_0", "GPU", "0", "g1-0"),
    ],
)
def test_an_engine_is_named_after_its_gpu_or_its_instance(instance, kind, device, name):
    arguments = {
        "model_name": "florence2",
        "model_instance_name": instance,
        "model_instance_kind": kind,
        "model_instance_device_id": device,
    }
    assert engine_name(arguments) == name


def test_the_name_of_a_model_may_look_like_that_of_an_instance():
    arguments = {"model_name": "a_0_1", "model_instance_name": "a_0_1_0_2", "model_instance_kind": "CPU"}
    assert engine_name(arguments) == "2"
