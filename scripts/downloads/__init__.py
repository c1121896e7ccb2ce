"""The downloads of scripts/download.py: what there is, how it is fetched, and where it goes."""
