"""Everything around segmenting videos: arguments, the stream of results, the output folder, metrics and pictures."""
