"""The Triton models: admission, prompts, responses, metrics.

Runs in Triton's Python stub, a process that must not crash, because Triton never restarts it: no torch, no image
decoding.
"""
