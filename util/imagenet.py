"""The statistics of ImageNet's colours, by which every frame is normalised."""

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
