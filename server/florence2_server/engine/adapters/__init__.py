"""Adapters: read from peft's folders, and checked against the checkpoint that they change."""
