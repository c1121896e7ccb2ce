"""Real videos with objects from stills and other videos pasted into them."""

from small_network.pasting.compose import PastedVideos, make_video
from small_network.pasting.sources import Sources, add_source_flags, find_sources

__all__ = ["PastedVideos", "Sources", "add_source_flags", "find_sources", "make_video"]
