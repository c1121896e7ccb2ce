"""Inference on videos: arguments, the stream of results, output folders, metrics and pictures."""
