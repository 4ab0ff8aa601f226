"""Benchmarks of speed and memory, in comparison with alternatives. The results are in RESULTS.md."""
