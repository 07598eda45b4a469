"""The environment with Ray and vLLM (`make test-ray`); tests of it are slow."""

import os
from pathlib import Path

import pytest

__all__ = ["needs_ray", "ray_python"]


def ray_python() -> Path:
    """Its Python; it need not be there."""
    return Path(os.environ.get("SOUPMIX_RAY_PYTHON", Path(__file__).parents[2] / ".venv-ray/bin/python"))


needs_ray = pytest.mark.skipif(not ray_python().exists(), reason="make test-ray makes .venv-ray")
