"""The mean and standard deviation of ImageNet's images (RGB, 0 to 1), and frames normalised with them.

All networks here expect normalised frames, because training starts from ImageNet weights. Torch is imported by the
functions that make tensors, so that scripts can use the constants without it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def normalise(image: torch.Tensor) -> torch.Tensor:
    """Convert uint8 RGB frames [...,3,H,W] to float32, normalised with ImageNet's mean, on the same device."""
    mean, std = statistics(image.device)
    return image.float().div_(255).sub_(mean).div_(std)


@functools.cache
def statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """ImageNet's mean and standard deviation, float32 [3,1,1] each.

    They are made on the device, because a copy from the CPU would wait for a GPU, and stay there.
    """
    import torch

    return tuple(
        torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])
        for values in (IMAGE_MEAN, IMAGE_STD)
    )
