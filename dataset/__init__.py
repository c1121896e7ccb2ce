"""Videos, masks and training samples on disk."""

import util  # noqa: F401  before torch, see there
