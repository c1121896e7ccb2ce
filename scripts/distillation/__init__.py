"""Keys that match as an ImageNet network does."""

from distillation.pairs import FramePairs
from distillation.teacher import ImageNetTeacher, affinity_divergence
from distillation.widen import train_new_channels, widened

__all__ = ["FramePairs", "ImageNetTeacher", "affinity_divergence", "train_new_channels", "widened"]
