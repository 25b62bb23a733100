"""The stub's side of the engine. It runs inside Triton's Python stub, which must not die: no torch, no images."""
