"""Finds and loads checkpoints: from a folder or the hub, in either layout, as safetensors or `.bin`."""
