"""The network of RDE-VOS, its memory and its engine."""

from model.checkpoint import load_network, save_network
from model.decoder import soft_aggregation
from model.network import RDE_VOS, NetworkConfig

__all__ = ["RDE_VOS", "NetworkConfig", "load_network", "save_network", "soft_aggregation"]
