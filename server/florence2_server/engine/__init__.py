"""The engine process: serves one Florence-2 checkpoint on one device, with in-flight batching.

It knows images, prompts and tokens, but neither Triton nor tasks. Start reading at `engine.py`, its loop.
"""
