"""Trains checkpoints: `demo/` makes the small one that comes with the project."""
