"""The same network, faster, for inference.

This folder knows processors, orders of memory and libraries. The modules of the paper, in ``model/``, do not. Nothing
in ``model/`` needs this folder: an engine also runs the plain network, slower.
"""

from model.fast.network import fast_network

__all__ = ["fast_network"]
