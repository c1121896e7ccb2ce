"""Training samples: clips from images and videos, augmented, perturbed and batched."""
