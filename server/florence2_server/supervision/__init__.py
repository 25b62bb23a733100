"""Keeps an engine process running, and resubmits the generations that were in flight when it crashed."""
