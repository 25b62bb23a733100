"""The name of an engine, which distinguishes the engines of a model in metrics, health and logs."""

from collections.abc import Mapping


def engine_name(arguments: Mapping[str, str]) -> str:
    """The name of the engine of a model instance, such as "0".

    It is the number of the GPU, or of the instance on a CPU. Further instances on a GPU are "0-1", "0-2", and so on;
    those of a second instance group begin with "g1-". On several GPUs, Triton gives all instances of a group the same
    name, so that it takes the device to tell them apart.

    Args:
        arguments: what Triton passes to `initialize`.
    """
    group, instance = arguments["model_instance_name"].removeprefix(arguments["model_name"] + "_").split("_")
    if arguments["model_instance_kind"] == "GPU":
        device = arguments["model_instance_device_id"]
        name = device if instance == "0" else f"{device}-{instance}"
    else:
        name = instance
    return name if group == "0" else f"g{group}-{name}"
