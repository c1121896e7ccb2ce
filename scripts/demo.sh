#!/usr/bin/env bash
# Set up, make synthetic clips in DAVIS's layout, and segment them with the network in model/weights. Results: demo/output.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
python scripts/make_synthetic.py --output data/demo --seed 37 --height 320 --width 568 --frames 30 --davis_val 3
python eval_davis.py --davis_path data/demo/DAVIS/2017 --output demo/output --overlay
python scripts/report.py demo/output --davis_path data/demo/DAVIS/2017
echo "Look at demo/output/report.html and demo/output/overlay/*.jpg"
