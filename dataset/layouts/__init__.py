"""Where each data set keeps its frames and masks."""
