"""The measurements of scripts/benchmark.py."""

import util  # noqa: F401  before torch, see there
