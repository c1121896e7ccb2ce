"""What programs need beside the engine: read and write frames and masks. The code is in `dataset.files.images`."""

from dataset.files.images import read_image, read_mask, to_tensor, write_mask

__all__ = ["read_image", "read_mask", "to_tensor", "write_mask"]
