"""Measurements of this server; benchmarks/README.md has the commands and the results.

`comparison` measures it beside other ways to serve the same requests, `capacity` sizes a fleet of it, `kernels`
measures single stages, and `harness` holds what several of these use.
"""
