# Sourced by the other shell scripts: a virtual environment with everything in requirements.txt.
# Uses the environment that is active, or makes .venv in the checkout.
if [ -z "${VIRTUAL_ENV:-}" ]; then
  [ -d .venv ] || python3 -m venv .venv
  source .venv/bin/activate
fi
# Quiet and fast where nothing is missing.
python -m pip install --quiet --disable-pip-version-check -r requirements.txt
