#!/usr/bin/env bash
# Set up, draw a small data set in DAVIS's layout, and segment it with the network in model/weights. Results: demo/output.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
# The seed is not that of the training data.
python scripts/make_toy_data.py --output demo/data --seed 7 --height 320 --width 568 --frames 30 \
  --static 0 --bl 0 --youtube_train 0 --youtube_valid 0 --davis_train 0 --davis_val 3 --davis_test 0
python eval_davis.py --davis_path demo/data/DAVIS/2017 --output demo/output --overlay
python scripts/report.py demo/output --davis_path demo/data/DAVIS/2017
echo "Look at demo/output/report.html and demo/output/overlay/*.jpg"
