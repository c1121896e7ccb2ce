"""Videos and masks on disk, and the training samples made from them."""

import util  # noqa: F401  must come before torch; the file says why
