# Sourced by the other shell scripts: a virtual environment with the packages of all scripts and tests.
# Uses the active environment, or makes .venv in the checkout.
if [ -z "${VIRTUAL_ENV:-}" ]; then
  [ -d .venv ] || python3 -m venv .venv
  source .venv/bin/activate
fi
requirements=(requirements.txt scripts/requirements/*.txt)
# Quiet and fast if nothing is missing.
python -m pip install --quiet --disable-pip-version-check "${requirements[@]/#/--requirement=}"
