"""Real videos with objects of stills and of other videos pasted into them."""

from pasting.compose import PastedVideos, make_video
from pasting.sources import Sources, find_sources

__all__ = ["PastedVideos", "Sources", "find_sources", "make_video"]
