#!/usr/bin/env bash
# Set up and run the tests: style (ruff), then behaviour (pytest). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
ruff check .
ruff format --check .
python -m pytest "$@"
