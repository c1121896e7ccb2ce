"""Parts of the network against the formulas they abbreviate."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

import plain
from conftest import SMALL
from model import RDE_VOS, NetworkConfig, soft_aggregation
from model.blocks import FusionBlock, ResidualBlock
from model.encoders import build_backbone
from model.reading import Embedding, MemoryTable, Similarity
from model.sam import SpatioTemporalAggregation


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (2, 3)])
def test_sam_is_the_papers_3d_module(size):
    torch.manual_seed(0)
    module = SpatioTemporalAggregation(16)
    previous, latest = torch.randn(2, 3, 16, *size)
    torch.testing.assert_close(module(previous, latest), plain.sam(module, previous, latest), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("top_k", [1, 7, 24, 1000])
@pytest.mark.parametrize("counts", [[1], [1, 2, 3], [2]])
def test_reading_the_top_k_of_counted_positions(top_k, counts):
    """Positions that count several times are as good as repeated ones, in the softmax and in the top k."""
    torch.manual_seed(0)
    contents = [(Embedding(torch.randn(1, 8, 2, 4), torch.randn(1, 3, 5, 2, 4)), count) for count in counts]
    query = torch.randn(1, 8, 1, MemoryTable.ROWS + 9)
    found = MemoryTable(contents).read(query, top_k)
    assert found.shape == (1, 3, 5, 1, MemoryTable.ROWS + 9)
    repeated = [embedding for embedding, count in contents for _ in range(count)]
    keys = torch.cat([embedding.key[0].flatten(1) for embedding in repeated], dim=1)
    for k in range(3):
        values = torch.cat([embedding.value[0, k].flatten(1) for embedding in repeated], dim=1)
        expected = plain.read(keys, values, query[0].flatten(1), top_k)
        torch.testing.assert_close(found[0, k].flatten(1), expected, atol=1e-5, rtol=1e-4)


class _ReducedProducts(TorchFunctionMode):
    """Multiplies fp32 matrices in bf16 where the settings allow that, as some processors do."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.baddbmm and args[1].dtype == torch.float32 and not self.exact:
            args = args[0], *(each.bfloat16().float() for each in args[1:])
        return function(*args, **(kwargs or {}))

    @property
    def exact(self) -> bool:
        try:
            return torch.get_float32_matmul_precision() == "highest"
        except RuntimeError:
            return False


@pytest.mark.parametrize("setting", ["highest", "high", "medium", "backend"])
def test_the_similarity_is_exact_whatever_the_precision_of_products(setting):
    torch.manual_seed(0)
    memory, query = 10 * torch.randn(1, 50, 64), 10 * torch.randn(1, 30, 64)
    expected = (2 * query.double() @ memory.double().mT - memory.double().square().sum(2)[:, None]) / 8
    try:
        if setting == "backend":
            torch.backends.cuda.matmul.allow_tf32 = True
        else:
            torch.set_float32_matmul_precision(setting)
        with _ReducedProducts():
            found = Similarity(memory)(query)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_soft_aggregation_is_a_distribution_that_keeps_the_order_of_the_masks():
    masks = torch.rand(2, 3, 4, 5)
    probability = soft_aggregation(masks).softmax(1)
    torch.testing.assert_close(probability.sum(1), torch.ones(2, 4, 5))
    assert torch.equal(probability[:, 1:].argsort(1), masks.argsort(1))
    certain = soft_aggregation(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)).softmax(1).flatten()
    torch.testing.assert_close(certain, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


def test_batch_norms_stay_frozen_in_training(small_network):
    network = RDE_VOS(small_network.config).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms) and network.training
    network.encode_key(torch.randn(2, 3, 32, 32))
    assert all(norm.num_batches_tracked == 0 and (norm.running_mean == 0).all() for norm in norms)


def test_batch_norms_that_are_not_frozen_learn_in_training_and_only_there(small_network):
    network = RDE_VOS(small_network.config)
    network.trained_norms = ("key_encoder",)
    norm = network.train().key_encoder.backbone.bn1
    network.encode_key(torch.randn(2, 3, 32, 32))
    learnt = norm.running_mean.clone()
    assert norm.num_batches_tracked == 1 and (learnt != 0).all()
    network.eval().encode_key(torch.randn(2, 3, 32, 32))
    assert norm.num_batches_tracked == 1 and torch.equal(norm.running_mean, learnt)


def test_initialisation_and_defaults_are_the_papers():
    config = NetworkConfig()
    assert config.key_backbone == config.mask_backbone == "resnet50"
    assert (config.key_channels, config.value_channels) == (64, 512)
    network = RDE_VOS()
    projection = network.key_encoder.key_projection
    rows = projection.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(64), atol=1e-5, rtol=0)
    assert (projection.bias == 0).all()
    extra = network.mask_encoder.backbone.conv1.weight[:, 3:].flatten(1)
    torch.testing.assert_close(extra @ extra.T, torch.eye(64), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="unknown backbone"):
        build_backbone("resnet7", 64)


def test_sam_starts_where_its_recurrence_stays_in_range():
    torch.manual_seed(0)
    network = RDE_VOS(replace(SMALL, value_channels=64))
    latest = Embedding(torch.randn(1, SMALL.key_channels, 8, 8), 10 * torch.randn(1, 1, 64, 8, 8))
    rde = latest
    with torch.no_grad():
        for _ in range(20):
            rde = network.aggregate(rde, latest)
    for start, end in zip(latest, rde, strict=True):
        assert 0.5 * start.std() < end.std() < 2 * start.std()


def test_fusion_blocks_are_residual_blocks_of_concatenations():
    torch.manual_seed(0)
    fusion, whole = FusionBlock(6, 4, 8), ResidualBlock(10, 8)
    for conv in ("conv1", "shortcut"):
        halves = getattr(fusion, conv)
        getattr(whole, conv).weight.data = torch.cat([halves.own.weight, halves.shared.weight], dim=1)
        getattr(whole, conv).bias = halves.shared.bias
    whole.conv2 = fusion.conv2
    own, shared = torch.randn(2 * 3, 6, 5, 7), torch.randn(2, 4, 5, 7)
    expected = whole(torch.cat([own, shared.repeat_interleave(3, dim=0)], dim=1))
    torch.testing.assert_close(fusion(own, shared), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_backbones_are_torchvisions(name):
    """Same names, same shapes, same features, same gradients, with norms that do something."""
    torch.manual_seed(0)
    resnet = getattr(torchvision.models, name)(weights=None).eval()
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.2, 0.8)
    backbone = build_backbone(name, 64).eval()
    backbone.load_state_dict(
        {key: tensor for key, tensor in resnet.state_dict().items() if key in backbone.state_dict()}
    )
    x = torch.randn(1, 3, 64, 48)
    f4 = resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x)))))
    f8 = resnet.layer2(f4)
    expected = f4, f8, resnet.layer3(f8)
    torch.testing.assert_close(backbone(x), expected, atol=1e-5, rtol=1e-5)
    sum(feature.square().mean() for feature in backbone(x)).backward()
    sum(feature.square().mean() for feature in expected).backward()
    theirs = dict(resnet.named_parameters())
    for key, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[key].grad, atol=1e-6, rtol=1e-3)
    assert tuple(feature.shape[1] for feature in backbone(x)) == backbone.channels
