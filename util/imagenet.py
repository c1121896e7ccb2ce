"""The mean and standard deviation of ImageNet's images (RGB, 0 to 1).

All networks here expect frames normalised with them, because training starts from ImageNet weights.
"""

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
