"""Read and write files: images, masks and videos."""
