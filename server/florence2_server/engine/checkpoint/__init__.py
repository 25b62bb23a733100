"""Checkpoints: found in a folder or on the hub, in either layout, as safetensors or `.bin`, and loaded."""
