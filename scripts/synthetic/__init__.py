"""Synthetic clips with exact masks, in the layouts of the real data sets."""

from synthetic.layouts import SyntheticSettings, make_synthetic

__all__ = ["SyntheticSettings", "make_synthetic"]
