"""The engine process: runs one Florence-2 checkpoint on one device with in-flight batching.

It knows prompts, tokens and images; nothing of Triton and nothing of tasks. Start reading at `engine.py` (the loop).
"""
