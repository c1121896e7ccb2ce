"""The same network, faster, for inference.

Code that is specific to processors, memory layouts and libraries is here. The modules of the paper, in ``model/``, are
plain. Nothing in ``model/`` depends on this package: an engine also runs the plain network, but slower.
"""

from model.fast.conversion import fast_network

__all__ = ["fast_network"]
