"""The stub's side of the engine: what runs inside Triton's Python stub, which must not die. No torch, no image decoder."""
