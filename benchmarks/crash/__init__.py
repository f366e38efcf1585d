"""The crash workflow: what `kill9.py` kills. `python -m benchmarks.crash --help` runs it."""
