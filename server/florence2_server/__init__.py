"""Florence-2 on NVIDIA Triton Inference Server: the stub, the supervision of the engine, and the engine."""

from importlib.metadata import version


def __getattr__(name: str) -> str:
    if name == "__version__":
        return version("florence2-triton-server")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
