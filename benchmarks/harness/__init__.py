"""What several benchmarks use: requests, expected answers, servers, load generators, statistics."""
