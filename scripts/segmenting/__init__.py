"""The parts of scripts/segment_video.py."""
