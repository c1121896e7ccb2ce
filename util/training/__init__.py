"""Everything around a training run: its folder with the checkpoints, and its log."""
