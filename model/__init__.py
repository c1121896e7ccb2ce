"""The network of RDE-VOS, its memory and its engine."""

from model.checkpoint import load_network, save_network
from model.network import RDE_VOS, NetworkConfig, soft_aggregation

__all__ = ["RDE_VOS", "NetworkConfig", "load_network", "save_network", "soft_aggregation"]
