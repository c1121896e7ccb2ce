#!/usr/bin/env bash
# Set up, draw a small data set in DAVIS's layout, and segment it. Results: demo/output.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
python scripts/make_toy_data.py --output demo/data --height 192 --width 320 --frames 24 \
  --static 0 --bl 0 --youtube_train 0 --youtube_valid 0 --davis_train 0 --davis_val 2 --davis_test 0
# No trained weights are at hand yet: these are freshly initialised, and the masks mean nothing.
[ -f demo/untrained.pth ] || python -c "from model import *; save_network(RDE_VOS(), 'demo/untrained.pth')"
python eval_davis.py --model demo/untrained.pth --davis_path demo/data/DAVIS/2017 --output demo/output --overlay
python scripts/report.py demo/output --davis_path demo/data/DAVIS/2017
echo "The network is untrained, so these masks and scores mean nothing yet."
echo "Look at demo/output/report.html and demo/output/overlay/*.jpg"
