#!/usr/bin/env bash
# Train the small network in model/weights on real video: DAVIS 2016 train, objects pasted into it, and any other videos. Then
# distil its keys from an ImageNet network.
# Writes to FOLDER (default runs/small); the same command resumes. Training runs on PROCESSES cores (default 2).
#
#   [DAVIS=...] [STATIC=...] [VIDEOS="FOLDER ..."] [START=...] [PROCESSES=2] bash scripts/small_network/train_small.sh [FOLDER]
#
# DAVIS   DAVIS 2016 (default data/DAVIS/2016, which is downloaded if it is missing); only its training split is used
# STATIC  images to cut objects from (default data/static, from `python scripts/download.py static`), left out if missing
# VIDEOS  folders of videos as train.py's --videos takes them; model/weights/README.md lists those of the shipped network
# START   initial weights (default: the network that was trained on synthetic data alone, from the git history)
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh
folder=${1:-runs/small}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$folder"

davis=${DAVIS:-data/DAVIS/2016}
[ -n "${DAVIS:-}" ] || [ -d "$davis" ] || python scripts/download.py davis2016
images=()
static=${STATIC:-data/static}
if [ -d "$static" ]; then
  images=(--images "$static")
else
  echo "note: $static is missing, so all pasted objects come from videos; to get it, run python scripts/download.py static"
fi
pasted_from=() own=()
for videos in ${VIDEOS:-}; do
  pasted_from+=(--videos "$videos")
  own+=(--videos "$videos:2")
done
[ "${#own[@]}" -gt 0 ] || echo "note: VIDEOS names no folder, so DAVIS 2016 is the only real video"
start=${START:-$folder/synthetic.pth}
if [ -z "${START:-}" ] && [ ! -s "$start" ]; then
  git show 945e031:model/weights/toy.pth >"$start" || {
    rm -f "$start"
    echo "error: the git history lacks commit 945e031; fetch the full history, or give initial weights: START=FILE" >&2
    exit 2
  }
fi

python scripts/small_network/paste_objects.py --davis_root "$davis" "${pasted_from[@]}" "${images[@]}" \
  --output "$folder/pasted" --count 216 --frames 20

# SAM is frozen: at this learning rate on clips of five frames, training would let its embedding grow without bound.
[ -f "$folder/s2/network.pth" ] || torchrun --standalone --nproc_per_node="${PROCESSES:-2}" train.py \
  --stage 2 --id s2 --runs "$folder" --resume --precision bf16 --workers 1 --load_network "$start" \
  --davis_root "$davis" --davis_year 2016 "${own[@]}" --videos "$folder/pasted:2" \
  --freeze key_aggregation value_aggregation --batch_size 8 --crop_size 224 --average 0.98 \
  --iterations 650 --lr 1.5e-4 --steps 550 --warm_up 5000 9000 --save_every 50 --log_every 10
# Averaging with the initial weights keeps the accuracy on synthetic video, and scores as well on real video.
python - "$start" "$folder/s2/network.pth" "$folder/real.pth" <<'PYTHON'
import sys

from torch.optim.swa_utils import AveragedModel

from model import load_network, save_network

start, trained, output = sys.argv[1:]
mean = AveragedModel(load_network(start))
for path in (start, trained):
    mean.update_parameters(load_network(path))
save_network(mean.module.half(), output)
PYTHON

[ -f "$folder/keys/network.pth" ] || torchrun --standalone --nproc_per_node="${PROCESSES:-2}" scripts/distill_keys.py \
  --id keys --runs "$folder" --resume --load_network "$folder/real.pth" --key_width 64 \
  --davis_root "$davis" "${pasted_from[@]}" "${images[@]}" --iterations 8400
python - "$folder/keys/network.pth" "$folder/small.pth" <<'PYTHON'
import sys

from model import load_network, save_network

save_network(load_network(sys.argv[1]).half(), sys.argv[2])  # half the size on disk
PYTHON
echo "the weights are in $folder/small.pth"
