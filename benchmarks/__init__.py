"""This server beside the conventional one, in one run: `python -m benchmarks --help`."""
