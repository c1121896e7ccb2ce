#!/usr/bin/env bash
# Train the small network in model/weights the paper's way: ImageNet, static images (stage 0), pasted videos in the place of
# BL30K (stage 1), real video (stage 2, first in small and then in large crops, then with more objects that leave the
# frame), then SAM.
# Writes to FOLDER (default runs/small); the same command resumes. Training runs on PROCESSES cores (default 2).
#
#   [DAVIS=...] [STATIC=...] [VIDEOS="FOLDER ..."] [PROCESSES=2] bash scripts/small_network/train_small.sh [FOLDER]
#
# DAVIS       DAVIS 2016 (default data/DAVIS/2016, which is downloaded if it is missing); only its training split is used
# STATIC      images with masks (default data/static, from `python scripts/download.py static`)
# VIDEOS      folders of videos as train.py's --videos takes them; model/weights/README.md lists those of the shipped network
# ITERATIONS  iterations of the six steps, SAM the last (0: SAM is not trained); small numbers are for a trial
# PASTED      numbers of pasted videos, for small crops, for large ones and for objects that leave (default "800 240 240")
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/setup.sh
folder=${1:-runs/small}
read -r static_steps pasted_steps video_steps large_steps leave_steps sam_steps <<<"${ITERATIONS:-1000 700 500 500 340 0}"
read -r pasted_small pasted_large pasted_leave <<<"${PASTED:-800 240 240}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$folder"

davis=${DAVIS:-data/DAVIS/2016}
[ -n "${DAVIS:-}" ] || [ -d "$davis" ] || python scripts/download.py davis2016
static=${STATIC:-data/static}
if [ ! -d "$static" ]; then
  echo "error: $static is missing; run python scripts/download.py static, or give a folder of images: STATIC=FOLDER" >&2
  exit 2
fi
own=() own_2=() own_4=() own_5=()
for videos in ${VIDEOS:-}; do
  own+=(--videos "$videos")
  own_2+=(--videos "$videos:2")
  own_4+=(--videos "$videos:4")
  own_5+=(--videos "$videos:5")
done
[ "${#own[@]}" -gt 0 ] || echo "note: VIDEOS names no folder, so DAVIS 2016 is the only real video"

# train STAGE NAME ITERATIONS FLAGS: one call of train.py, unless it is finished. The mean of the last weights is saved.
train() {
  local stage=$1 name=$2 iterations=$3
  shift 3
  [ -f "$folder/$name/network.pth" ] || torchrun --standalone --nproc_per_node="${PROCESSES:-2}" train.py \
    --stage "$stage" --id "$name" --runs "$folder" --resume --precision bf16 --workers 1 --save_every 50 --log_every 20 \
    --iterations "$iterations" "$@"
}

# The backbone of the key encoder keeps ImageNet's weights. The mask encoder, a narrow ResNet, starts from random weights.
train 0 images "$static_steps" --static_root "$static" \
  --key_backbone efficientnet_lite0 --mask_backbone resnet10 --mask_width 32 --value_channels 128 --decoder_channels 128 64 32 \
  --from_scratch mask_encoder --freeze key_encoder.backbone --crop_size 224 --batch_size 16 --lr 5e-4 --average 0.98 \
  --steps $((static_steps * 4 / 5)) --warm_up $((static_steps / 10)) "$static_steps"

paste() { python scripts/small_network/paste_objects.py --davis_root "$davis" "${own[@]}" --images "$static" "$@"; }
paste --output "$folder/pasted_videos" --count "$pasted_small" --frames 16
paste --output "$folder/pasted_large" --count "$pasted_large" --frames 16 --height 384 --width 512 --seed 1
paste --output "$folder/pasted_leave" --count "$pasted_leave" --frames 20 --height 384 --width 512 --seed 2
# What the steps on clips share.
clips=(--freeze key_encoder.backbone key_aggregation value_aggregation
  --batch_size 8 --lr 3e-4 --warm_up 5000 9000 --average 0.98)
train 1 pasted "$pasted_steps" --videos "$folder/pasted_videos" --load_network "$folder/images/network.pth" \
  "${clips[@]}" --crop_size 224 --steps $((pasted_steps * 6 / 7))
train 2 video "$video_steps" --davis_root "$davis" --davis_year 2016 "${own_4[@]}" --videos "$folder/pasted_videos" \
  --load_network "$folder/pasted/network.pth" \
  "${clips[@]}" --crop_size 224 --steps $((video_steps * 21 / 25))

train 2 large "$large_steps" --davis_root "$davis" --davis_year 2016 "${own_5[@]}" --videos "$folder/pasted_large" \
  --load_network "$folder/video/network.pth" \
  "${clips[@]}" --crop_size 320 --steps $((large_steps * 9 / 10))

train 2 leave "$leave_steps" --davis_root "$davis" --davis_year 2016 "${own_5[@]}" --videos "$folder/pasted_leave" \
  --load_network "$folder/large/network.pth" \
  "${clips[@]}" --crop_size 320 --steps $((leave_steps * 33 / 34))

# The mean of the weights of the last two steps is better than either.
[ -f "$folder/mean.pth" ] || python - "$folder"/{mean,large/network,leave/network}.pth <<'PYTHON'
import sys

from model import load_network, save_network

mean, other = map(load_network, sys.argv[2:])
for name, weight in other.state_dict().items():
    if weight.is_floating_point():
        mean.state_dict()[name].lerp_(weight, 0.5)
save_network(mean, sys.argv[1])
PYTHON

# SAM learns last and alone, on longer clips: its errors add up over the updates. In the shipped network it is as it starts.
last=mean.pth
if [ "$sam_steps" -gt 0 ]; then
  train 2 sam "$sam_steps" --davis_root "$davis" --davis_year 2016 "${own_2[@]}" --videos "$folder/pasted_leave" \
    --load_network "$folder/mean.pth" --freeze key_encoder mask_encoder decoder \
    --frames 9 --crop_size 224 --batch_size 8 --lr 2e-5 --warm_up 5000 9000 --average 0.95
  last=sam/network.pth
fi
python - "$folder/$last" "$folder/small.pth" <<'PYTHON'
import sys

from model import load_network, save_network

save_network(load_network(sys.argv[1]).half(), sys.argv[2])  # half the size on disk
PYTHON
echo "the weights are in $folder/small.pth"
