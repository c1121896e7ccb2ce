#!/usr/bin/env bash
# Train the small network in model/weights: draw the data, then stages 0, 1 and 2, from random weights.
# Everything goes to FOLDER (default runs/toy); run again to go on. PROCESSES (default 2) share the work, a core each.
# Some pictures come from Debian: apt install tuxpaint-stamps-default openclipart-png plasma-workspace-wallpapers \
#   mate-backgrounds lomiri-wallpapers-16.04
#
#   [PROCESSES=2] bash scripts/train_toy.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
python -m pip install --quiet --disable-pip-version-check scikit-image scikit-learn  # for their photographs
folder=${1:-runs/toy}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

python scripts/make_toy_data.py --output "$folder/data" --seed 1 --height 320 --width 568 --frames 16 --max_objects 4 \
  --static 2400 --bl 120 --youtube_train 200 --youtube_valid 10 --davis_train 60 --davis_val 10 --davis_test 2 --photos
python scripts/make_toy_data.py --output "$folder/longer" --seed 3 --height 320 --width 568 --frames 40 --max_objects 4 \
  --static 0 --bl 0 --youtube_train 200 --youtube_valid 0 --davis_train 300 --davis_val 0 --davis_test 0 --photos
python scripts/make_toy_data.py --output "$folder/lead" --seed 11 --height 480 --width 854 --frames 32 --max_objects 2 \
  --static 0 --bl 0 --youtube_train 4 --youtube_valid 0 --davis_train 800 --davis_val 0 --davis_test 0 \
  --photos --cutouts --clip_art --hard --lead

stage() {
  [ -f "$folder/$1/network.pth" ] || torchrun --standalone --nproc_per_node="${PROCESSES:-2}" train.py \
    --stage "$2" --id "$1" --runs "$folder" --resume --precision bf16 --batch_size 8 --workers 1 \
    --save_every 200 --log_every 20 --draw_every 200 "${@:3}"
}
# Mining hard pixels keeps a network that knows nothing at p = 0.5, and brings one back there while the learning rate is
# high: stage 0 ends before the share of pixels falls below a quarter and is then run again with a lower one, where the
# share falls with the rate; stage 1 does without, stage 2 goes half the way.
stage s0 0 --static_root "$folder/data/static" --from_scratch \
  --key_backbone resnet18 --key_width 32 --mask_backbone resnet10 --mask_width 32 \
  --key_channels 64 --value_channels 128 --decoder_channels 128 64 32 \
  --crop_size 160 --iterations 3000 --lr 1e-3 --steps 3000 --warm_up 2000 3200
stage s0-again 0 --static_root "$folder/data/static" --load_network "$folder/s0/network.pth" --from_scratch --seed 1 \
  --crop_size 160 --iterations 3300 --lr 5e-4 --steps 2400 3000 --warm_up 2400 4200
stage s1 1 --bl_root "$folder/data/BL30K" --load_network "$folder/s0-again/network.pth" \
  --crop_size 160 --iterations 250 --lr 1e-4 --steps 250 --warm_up 250 500
stage s2 2 --davis_root "$folder/data/DAVIS/2017" --yv_root "$folder/data/YouTube" \
  --load_network "$folder/s1/network.pth" \
  --crop_size 192 --iterations 1200 --lr 1e-4 --steps 1000 --warm_up 200 1800
# Longer videos, so that objects change more between the frames of a clip, and larger crops, so that small ones count.
stage s2-again 2 --davis_root "$folder/longer/DAVIS/2017" --yv_root "$folder/longer/YouTube" \
  --load_network "$folder/s2/network.pth" --seed 1 \
  --crop_size 224 --iterations 2000 --lr 1e-4 --steps 1700 --warm_up 2000 4000

# Clips of five frames do not show SAM where its recurrence leads: after the longer videos its values grow without bound
# from some fifty updates on. As the stage before left it, it holds over any length and segments as well.
python - "$folder/s2-again/network.pth" "$folder/s2/network.pth" "$folder/merged.pth" <<'PYTHON'
import sys

from model import load_network, save_network

network, earlier = (load_network(path) for path in sys.argv[1:3])
network.value_aggregation.load_state_dict(earlier.value_aggregation.state_dict())
save_network(network.half(), sys.argv[3])  # loaded as single precision
PYTHON

# Short runs at a high rate leave the valley's floor in different directions, and none is better for it; their mean with
# where they started is. SAM would not survive that rate.
for seed in 2 3; do
  stage "s2-seed$seed" 2 --davis_root "$folder/longer/DAVIS/2017" --yv_root "$folder/longer/YouTube" \
    --load_network "$folder/merged.pth" --seed "$seed" --freeze key_aggregation value_aggregation \
    --crop_size 224 --iterations 500 --lr 4e-4 --steps 400 --warm_up 2000 4000
done
python - "$folder/merged.pth" "$folder"/s2-seed{2,3}/network.pth "$folder/mean.pth" <<'PYTHON'
import sys
from dataclasses import replace

from torch.optim.swa_utils import AveragedModel

from model import RDE_VOS, load_network, save_network

*networks, output = sys.argv[1:]
mean = AveragedModel(load_network(networks[0]))
for path in networks:
    mean.update_parameters(load_network(path))
# Probabilities fade as they return through the memory; see model/weights/README.md.
network = RDE_VOS(replace(mean.module.config, mask_threshold=0.4))
network.load_state_dict(mean.module.state_dict())
save_network(network.half(), output)
PYTHON

# Few objects, which stand out, turn and have many colours: what real video has most. At a higher rate SAM's embedding
# leaves its range after some hundred iterations.
stage s2-lead 2 --davis_root "$folder/lead/DAVIS/2017" --yv_root "$folder/lead/YouTube" \
  --load_network "$folder/mean.pth" --precision fp32 --batch_size 16 --average 0.98 \
  --crop_size 384 --iterations 900 --lr 3e-5 --steps 700 --warm_up 2000 4000
python - "$folder/s2-lead/network.pth" "$folder/toy.pth" <<'PYTHON'
import sys

from model import load_network, save_network

save_network(load_network(sys.argv[1]).half(), sys.argv[2])  # half the size on disk
PYTHON
echo "the weights are in $folder/toy.pth"
