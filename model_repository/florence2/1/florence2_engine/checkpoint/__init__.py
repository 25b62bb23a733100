"""Checkpoints: found in a folder or on the hub, in either layout, as safetensors or `.bin`, and loaded."""

from florence2_engine.checkpoint.loading import Checkpoint, load

__all__ = ["Checkpoint", "load"]
