"""The published network's numbers, through the public interfaces (tests/goldens/README.md)."""

import numpy as np
import pytest
import torch

from conftest import GOLDENS, tensors
from model import RDE_VOS
from model.fast import fast_network
from model.inference import InferenceCore
from model.reading import Embedding


@pytest.fixture(scope="module", params=["plain", "fast"])
def network(request, published_network) -> RDE_VOS:
    """The published network, as the modules of the paper compute it and as model/fast/ does."""
    return published_network if request.param == "plain" else fast_network(published_network)


def assert_close(actual: torch.Tensor, golden: np.ndarray, relative: float = 1e-3) -> None:
    golden = torch.from_numpy(golden)
    assert actual.shape == golden.shape
    assert (actual - golden).norm() <= relative * golden.norm()
    assert (actual - golden).abs().max() <= relative * golden.abs().max()


@torch.inference_mode()
def test_modules(network):
    golden = np.load(GOLDENS / "modules.npz")
    first, second = (image[None] for image in tensors(golden["frames"]))
    ids = torch.from_numpy(golden["mask"])
    masks = torch.stack([ids == 1, ids == 2])[None].float()

    features = network.encode_key(first)
    for name in ("key", "query_value", "f16", "f8", "f4"):
        assert_close(getattr(features, name), golden[name])
    value = network.encode_value(first, features.f16, masks)
    assert_close(value[0], golden["value"])

    latest = Embedding(network.encode_key(second).key, torch.from_numpy(golden["value_1"])[None])
    assert_close(latest.key, golden["key_1"])
    rde_key, rde_value = network.aggregate(Embedding(features.key, value), latest)
    assert_close(rde_key, golden["rde_key"])
    assert_close(rde_value[0], golden["rde_value"])

    logit = network.decode(value, features)
    assert_close(logit[0, :, None], golden["decoder_logit"])


def test_propagation(network):
    golden = np.load(GOLDENS / "propagation.npz")
    core = InferenceCore(network, bank="2F+L+RDE", mem_every=3, top_k=40)
    for t, image in enumerate(tensors(golden["frames"])):
        probability = core.step(image, torch.from_numpy(golden["mask"]) if t == 0 else None)
        np.testing.assert_allclose(probability.numpy(), golden["prob"][:, t], atol=1e-4)
    assert core.object_ids == [1, 2]


def test_propagation_with_a_late_object(network):
    golden = np.load(GOLDENS / "propagation_late_object.npz")
    core = InferenceCore(network, bank="2F+L+RDE", mem_every=4, top_k=20)
    for t, image in enumerate(tensors(golden["frames"])):
        mask = torch.from_numpy(golden[f"mask_{t}"]) if t in (0, 5) else None
        probability = core.step(image, mask)
        assert probability.shape[0] == (2 if t < 5 else 3)
        np.testing.assert_allclose(probability.numpy(), golden["prob"][: probability.shape[0], t], atol=1e-4)
    assert core.object_ids == [1, 2]
