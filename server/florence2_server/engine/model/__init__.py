"""Florence-2 as tensors: no requests, no text, and no imports from the rest of the engine."""
