"""The parts of `benchmarks/results.py`: what weights do, from reports of `soupmix evaluate`."""
