"""Videos and masks on disk, and training samples from them."""
