"""The evidence for an object in one frame: edges, colours, and the features of the network."""

import cv2
import numpy as np
import torch

from dataset.files.images import resize_image, short_side_size, to_tensor
from model.inference import pad_to_stride
from model.network import RDE_VOS

MOST_PIXELS = 110_000  # larger frames are segmented at a smaller size, for speed
FAR = 1e6  # longer than any path
STEP = 1.0  # the cost of a path for each pixel, in addition to the change of colour
COLOUR_STEPS = (12, 6, 6)  # of the bins of a histogram, in levels of L, a and b
COLOUR_BINS = (22, 32, 32)
MOST_COLOUR = 4.0  # a bound of the colours' evidence
MOST_FEATURES = 2.0  # a bound of the features' evidence
FEATURE_SCALE = 24  # of squared distances between features
NEIGHBOURS = 3  # nearest marked positions that the features of a position are compared with
MOST_MARKED = 64  # marked positions are subsampled to this number
COVERED = 0.1  # the minimum fraction of a marked position that the mask covers
WINDOW = 1 / 40  # of the short side: the radius of the smoothing
EDGE = 1e-3  # the variance of colours, 0 to 1, that smoothing treats as an edge


class Picture:
    """A frame that is prepared for cuts.

    Masks and maps have the size of the prepared frame; large frames are downscaled. Evidence is a map that is positive
    where the object is more probable than its surroundings.

    Args:
        image: uint8 RGB [H,W,3].
        network: in eval mode.
        network_side: the short side of the network's input, in pixels; None for the size of the frame.

    Attributes:
        full_size: the height and width of the frame.
        size: the height and width of the prepared frame.
    """

    def __init__(self, image: np.ndarray, network: RDE_VOS, network_side: int | None) -> None:
        self.image, self.network = image, network
        self.full_size = image.shape[:2]
        scale = min(1.0, (MOST_PIXELS / (image.shape[0] * image.shape[1])) ** 0.5)
        self.size = tuple(max(1, round(scale * side)) for side in self.full_size)
        small = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.8), cv2.COLOR_RGB2LAB).astype(np.float32)
        self._right = STEP + np.linalg.norm(np.diff(lab, axis=1), axis=2)
        self._down = STEP + np.linalg.norm(np.diff(lab, axis=0), axis=2)
        bins = ((lab - (0, 64, 64)) // COLOUR_STEPS).clip(0, np.subtract(COLOUR_BINS, 1)).astype(int)
        self._bins = np.ravel_multi_index(tuple(np.moveaxis(bins, 2, 0)), COLOUR_BINS)
        self._smoothing = _GuidedFilter(np.float32(small) / 255, max(3, int(WINDOW * min(self.size))), EDGE)

        self._network_size = short_side_size(self.full_size, network_side) if network_side else self.full_size
        padded, self._padding = pad_to_stride(to_tensor(resize_image(image, self._network_size))[None])
        with torch.inference_mode():
            features = network.encode_key(padded.to(network.device, network.dtype))
        fine = features.f8[0].float().cpu().numpy()
        fine = fine - fine.mean((1, 2), keepdims=True)
        # Keys have the scale of Eq. 2. The features at stride 8 get a similar one.
        fine *= 4 / (np.linalg.norm(fine, axis=0) + 1e-6)
        self._features = {"coarse": features.key[0].float().cpu().numpy(), "fine": fine}

    def shrink(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the frame, bool [H,W], at the prepared size; no pixel gets lost."""
        if mask.shape == self.size:
            return mask
        return cv2.resize(mask.astype(np.float32), self.size[::-1], interpolation=cv2.INTER_AREA) > 0

    def enlarge(self, probability: np.ndarray) -> np.ndarray:
        """The mask of the frame, bool [H,W], from the probability at the prepared size."""
        return cv2.resize(probability.astype(np.float32), self.full_size[::-1]) > 0.5

    def path_lengths(self, starts: np.ndarray, rounds: int = 2) -> np.ndarray:
        """Geodesic distances: the cost of the cheapest path to each pixel. Changes of colour are expensive.

        Args:
            starts: the cost of starting at each pixel; `FAR` for no start.
            rounds: the number of sweeps down and up; each round allows paths one more turn.
        """
        length = starts.astype(np.float32)
        # Costs add up along a row, so the cheapest path from the left is a running minimum.
        along = np.pad(self._right.cumsum(1, dtype=np.float32), ((0, 0), (1, 0)))

        def pass_along(y: int) -> None:
            from_left = np.minimum.accumulate(length[y] - along[y]) + along[y]
            from_right = np.minimum.accumulate((length[y] + along[y])[::-1])[::-1] - along[y]
            np.minimum(from_left, from_right, out=length[y])

        for _ in range(rounds):
            pass_along(0)
            for y in range(1, len(length)):
                np.minimum(length[y], length[y - 1] + self._down[y - 1], out=length[y])
                pass_along(y)
            for y in range(len(length) - 2, -1, -1):
                np.minimum(length[y], length[y + 1] + self._down[y], out=length[y])
                pass_along(y)
        return length

    def colours(self, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """The evidence of colours: the log ratio of each colour's frequency inside and outside, by weights."""
        ratio = np.log((self._histogram(inside) + 1e-6) / (self._histogram(outside) + 1e-6))
        return ratio.clip(-MOST_COLOUR, MOST_COLOUR)[self._bins]

    def _histogram(self, weights: np.ndarray) -> np.ndarray:
        counts = np.bincount(self._bins.ravel(), weights.ravel(), np.prod(COLOUR_BINS)).reshape(COLOUR_BINS)
        for axis in range(3):  # similar colours count a little, too
            counts = (np.roll(counts, 1, axis) + 2 * counts + np.roll(counts, -1, axis)) / 4
        return counts.ravel() / max(counts.sum(), 1e-6)

    def features(self, name: str, inside: np.ndarray, outside: np.ndarray) -> np.ndarray | float:
        """The evidence of features: their distance to those outside minus their distance to those inside.

        Args:
            name: "coarse", the network's keys at stride 16, or "fine", its features at stride 8.
            inside, outside: marked pixels, bool. Inside has priority where a position of the features has both.

        Returns:
            the map; 0 if either is empty.
        """
        features = self._features[name]
        inside = self._positions(inside, features.shape[1:])
        outside = self._positions(outside, features.shape[1:]) & ~inside
        if not (inside.any() and outside.any()):
            return 0.0
        difference = _distances(features, outside) - _distances(features, inside)
        difference = (difference / FEATURE_SCALE).clip(-MOST_FEATURES, MOST_FEATURES)
        left, right, top, bottom = self._padding
        stride = (self._network_size[0] + top + bottom) // features.shape[1]
        height, width = (stride * side for side in features.shape[1:])
        difference = cv2.resize(difference, (width, height))[top : height - bottom, left : width - right]
        return cv2.resize(difference, self.size[::-1], interpolation=cv2.INTER_AREA)

    def _positions(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The positions of features [h,w] that a mask covers by `COVERED`, or those that it covers best."""
        left, right, top, bottom = self._padding
        covered = cv2.resize(mask.astype(np.float32), self._network_size[::-1], interpolation=cv2.INTER_AREA)
        covered = cv2.resize(np.pad(covered, ((top, bottom), (left, right))), size[::-1], interpolation=cv2.INTER_AREA)
        return (covered > 0) & (covered >= min(COVERED, covered.max()))

    def smooth(self, probability: np.ndarray) -> np.ndarray:
        """Smooth a map of probabilities, preserving edges of the picture."""
        return self._smoothing(probability.astype(np.float32))


def _distances(features: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """The mean squared distance of each feature [C,h,w] to the nearest marked ones [h,w]."""
    examples = features[:, marked]
    if examples.shape[1] > MOST_MARKED:
        examples = examples[:, np.linspace(0, examples.shape[1] - 1, MOST_MARKED).astype(int)]
    flat = features.reshape(len(features), -1)
    squares = np.square(examples).sum(0)[:, None] - 2 * examples.T @ flat + np.square(flat).sum(0)
    nearest = min(NEIGHBOURS, len(squares))
    return np.partition(squares, nearest - 1, axis=0)[:nearest].mean(0).reshape(marked.shape)


class _GuidedFilter:
    """The guided filter of He et al. (2013): in every window the result is a linear function of the colours.

    Args:
        guide: the picture, float32 [H,W,3] in 0..1.
        radius: half the width of the window, in pixels.
        edge: the regularisation ε: windows with more variance of colours are edges.
    """

    def __init__(self, guide: np.ndarray, radius: int, edge: float) -> None:
        self._guide = guide
        self._window = (2 * radius + 1, 2 * radius + 1)
        self._mean = self._blur(guide)
        red, green, blue = np.moveaxis(guide, 2, 0)
        products = np.stack([red * red, red * green, red * blue, green * green, green * blue, blue * blue], axis=2)
        mean_red, mean_green, mean_blue = np.moveaxis(self._mean, 2, 0)
        means = [mean_red * mean_red, mean_red * mean_green, mean_red * mean_blue]
        means += [mean_green * mean_green, mean_green * mean_blue, mean_blue * mean_blue]
        rr, rg, rb, gg, gb, bb = np.moveaxis(self._blur(products) - np.stack(means, axis=2), 2, 0)
        rr, gg, bb = rr + edge, gg + edge, bb + edge
        # The inverses of the covariances [[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]], by their cofactors.
        inverse = np.array(
            [
                [gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg],
                [rb * gb - rg * bb, rr * bb - rb * rb, rb * rg - rr * gb],
                [rg * gb - rb * gg, rb * rg - rr * gb, rr * gg - rg * rg],
            ]
        )
        self._inverse = inverse / (rr * inverse[0, 0] + rg * inverse[0, 1] + rb * inverse[0, 2])

    def _blur(self, map_: np.ndarray) -> np.ndarray:
        # OpenCV blurs at most four channels in one call as fast as one.
        return cv2.blur(map_, self._window)

    def __call__(self, map_: np.ndarray) -> np.ndarray:
        """Filter a map, float32 [H,W]."""
        mean = self._blur(map_)
        covariance = self._blur(self._guide * map_[:, :, None]) - self._mean * mean[:, :, None]
        slope = np.einsum("ijyx,yxj->yxi", self._inverse, covariance)
        offset = mean - (slope * self._mean).sum(2)
        return (self._blur(slope) * self._guide).sum(2) + self._blur(offset)
