"""Real videos with objects from stills and other videos pasted into them."""

from pasting.compose import PastedVideos, make_video
from pasting.sources import Sources, find_sources

__all__ = ["PastedVideos", "Sources", "find_sources", "make_video"]
