"""How fast, how many, how much memory: `python -m benchmarks`. See docs/benchmarks.md."""
