"""The downloads of scripts/download.py: catalogue, transfer, unpacking and layout."""
