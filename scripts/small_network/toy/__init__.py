"""Synthetic videos with exact masks, in the layouts of the real data sets."""

from small_network.toy.layouts import ToySettings, make_toy_data
from small_network.toy.preview import write_preview

__all__ = ["ToySettings", "make_toy_data", "write_preview"]
