"""Videos and masks on disk, and the training samples made from them."""
