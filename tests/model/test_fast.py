"""The fast network, its blocks and its convolutions against the plain network."""

import copy
import functools
import itertools
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import ROOT, SMALL, draw_clip, tensors
from model import RDE_VOS, load_network
from model.efficientnet import NAME as EFFICIENTNET
from model.fast import fast_network, winograd
from model.fast.convolution import Convolution, PackedConv2d, PackedSameConv2d
from model.fast.winograd import CompiledConv2d
from model.inference import InferenceCore
from util.device import inference_dtype

needs_onednn = pytest.mark.skipif(not PackedConv2d.available(), reason="this PyTorch has no oneDNN")


def can_compile(dtype: torch.dtype) -> bool:
    return CompiledConv2d.supports(nn.Conv2d(64, 64, 3, padding=1, dtype=dtype))


def write_compilers(folder: Path, program: str) -> None:
    for name in ("cc", "gcc"):
        (folder / name).write_text(f"#!/bin/sh\n{program}\n")
        (folder / name).chmod(0o755)


needs_compiler = pytest.mark.skipif(not can_compile(torch.float32), reason="no C compiler here")


@pytest.fixture(params=[pytest.param(True, marks=needs_compiler), False], ids=["compiled", "torch"])
def network(request, monkeypatch) -> RDE_VOS:
    """A network whose norms do something, as those of trained networks do; with a C compiler and without."""
    if not request.param:
        monkeypatch.setattr(winograd, "_library", lambda dtype: None)
    torch.manual_seed(0)
    network = RDE_VOS(replace(SMALL, value_channels=64, decoder_channels=(64, 64, 64)))  # wide enough for Winograd
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1)
    return network.eval()


@pytest.mark.parametrize("frames", [1, 2])
@torch.inference_mode()
def test_every_part_computes_the_same(network, frames):
    fast = fast_network(network)
    kinds = {type(module) for module in fast.modules()}
    assert (CompiledConv2d in kinds) == (winograd._library(torch.float32) is not None)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    image, masks = torch.randn(frames, 3, 64, 96), torch.rand(frames, 3, 64, 96)
    features, fast_features = network.encode_key(image), fast.encode_key(image)
    for plain, quick in zip(features, fast_features, strict=True):
        torch.testing.assert_close(quick, plain, atol=1e-4, rtol=1e-4)
    value, fast_value = (n.encode_value(image, features.f16, masks) for n in (network, fast))
    torch.testing.assert_close(fast_value, value, atol=1e-4, rtol=1e-4)
    logit, fast_logit = (n.decode(value, features) for n in (network, fast))
    torch.testing.assert_close(fast_logit, logit, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def efficient() -> RDE_VOS:
    """A network with EfficientNet-Lite0 in both encoders, whose norms do something and keep the features in range."""
    torch.manual_seed(0)
    widths = {"key_width": 64, "mask_width": 64}
    network = RDE_VOS(replace(SMALL, key_backbone=EFFICIENTNET, mask_backbone=EFFICIENTNET, **widths))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1)
    # Statistics of an image, as training would find them.
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = None
    with torch.no_grad():
        network.encode_value(torch.randn(2, 3, 192, 224), torch.randn(2, 432, 12, 14), torch.rand(2, 1, 192, 224))
        network.encode_key(torch.randn(2, 3, 192, 224))
    return network.eval()


# At stride 16 the first size has odd sides, and the second even ones; at stride 32 the third has one of each.
@pytest.mark.parametrize("size", [(176, 208), (192, 224), (64, 96)])
@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize("onednn", [pytest.param(True, marks=needs_onednn), False], ids=["onednn", "folded"])
@torch.inference_mode()
def test_efficientnet_computes_the_same(efficient, size, objects, onednn, monkeypatch):
    if not onednn:  # what remains on GPUs, the norms folded
        monkeypatch.setattr(PackedConv2d, "available", lambda: False)
    half = inference_dtype(torch.device("cpu"), amp=True)
    fast, fast_half, half = fast_network(efficient), fast_network(efficient, half), copy.deepcopy(efficient).to(half)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert any(isinstance(module, PackedSameConv2d) for module in fast.modules()) == onednn
    for batch in (1, 2, 1):
        image, masks = torch.randn(batch, 3, *size), torch.rand(batch, objects, *size)
        features = efficient.encode_key(image)
        expected = *features, efficient.encode_value(image, features.f16, masks)
        errors = []
        for network in (fast, half, fast_half):
            x, f16, others = (each.to(network.dtype) for each in (image, features.f16, masks))
            found = *network.encode_key(x), network.encode_value(x, f16, others)
            assert all(each.dtype == network.dtype for each in found)
            errors.append([((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)])
        for name, error, of_half, of_fast_half in zip((*features._fields, "value"), *errors, strict=True):
            assert error < 1e-4, name
            assert of_fast_half < 1.5 * of_half + 1e-4, name  # no less precise than the plain network in bf16


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("options", [[], ["-mno-avx512f"], ["-mno-avx"]], ids=["native", "avx2", "sse"])
@pytest.mark.parametrize(
    ("channels", "size"), [((64, 64), (75, 80)), ((96, 64), (40, 41)), ((64, 128), (24, 30)), ((64, 96), (1, 3))]
)
@torch.inference_mode()
def test_compiled_is_the_convolution(channels, size, options, dtype, monkeypatch, tmp_path):
    program = f'exec {shutil.which("cc") or shutil.which("gcc")} "$@" {" ".join(options)}'
    write_compilers(tmp_path, program)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(winograd, "_library", functools.cache(winograd._library.__wrapped__))
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 3, padding=1, bias=size[0] != 40)
    # Small frames are oneDNN's, which can be told by ONEDNN_MAX_CPU_ISA to take a processor for an older one.
    if not can_compile(dtype) or (dtype == torch.bfloat16 != inference_dtype(torch.device("cpu"), amp=True)):
        assert dtype == torch.bfloat16
        pytest.skip("these processors do not multiply bf16")
    x = torch.randn(2, channels[0], *size)
    exact = conv(x)
    other = torch.randn_like(exact)
    # As it is, where oneDNN computes small frames; then all kernels and few tiles at once, all tiles and one block of
    # kernels, and one group of tiles and one block.
    bound = 1e-5 if dtype == torch.float32 else 0.02
    for least, kernels, tiles in ((400, 1 << 24, 1 << 21), (0, 1 << 24, 1 << 21), (0, 1, 1 << 25), (0, 1, 1)):
        monkeypatch.setattr(CompiledConv2d, "MIN_POSITIONS", least)
        for name in ("ALL_KERNELS_BYTES", "SOME_KERNELS_BYTES"):
            monkeypatch.setattr(CompiledConv2d, name, kernels)
        for name in ("FEW_TILES_BYTES", "ALL_TILES_BYTES"):
            monkeypatch.setattr(CompiledConv2d, name, tiles)
        ours = CompiledConv2d(conv.to(dtype))
        result = ours(x.to(dtype))
        assert result.dtype == dtype and (result - exact).norm() < bound * exact.norm()
        result = ours(x.to(dtype), other.to(dtype), replace_other=True)
        assert (result - exact - other).norm() < bound * exact.norm()


@needs_compiler
def test_compiled_refuses_what_it_was_not_made_for():
    conv = CompiledConv2d(nn.Conv2d(64, 96, 3, padding=1))
    assert conv(torch.empty(0, 64, 8, 8)).shape == (0, 96, 8, 8)
    x, other = torch.randn(1, 64, 24, 24), torch.randn(1, 96, 24, 24)
    for wrong in ((x.bfloat16(),), (other,), (x, x), (x, other.half()), (x, other[..., :4]), (x, other[:0])):
        with pytest.raises(ValueError):
            conv(*wrong)
    assert not CompiledConv2d.supports(nn.Conv2d(64, 72, 3, padding=1))
    assert not CompiledConv2d.supports(nn.Conv2d(64, 64, 3, padding=1).double())


@pytest.mark.parametrize("program", [None, "exit 1", "exit 0"])
def test_a_compiler_that_fails_is_as_good_as_none(program, monkeypatch, tmp_path):
    if program is not None:
        write_compilers(tmp_path, program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert winograd._library.__wrapped__(torch.float32) is None


@needs_onednn
@torch.inference_mode()
def test_a_convolution_includes_what_surrounds_it_and_keeps_the_other_tensor():
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 96, 3, padding=1)
    x, other = torch.randn(1, 64, 80, 76), torch.randn(1, 96, 80, 76)
    kept = other.clone()
    for kind in [PackedConv2d(plain)] + [CompiledConv2d(plain)] * can_compile(torch.float32):
        for relu_first, relu, summand in itertools.product((False, True), (False, True), (None, other)):
            expected = plain(x.relu() if relu_first else x) + (0 if summand is None else summand)
            result = kind(x, summand, relu_first=relu_first, relu=relu)
            torch.testing.assert_close(result, expected.relu() if relu else expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(other, kept)
        # The result may replace the other tensor; the result is the same.
        for layout in (torch.contiguous_format, torch.channels_last):
            replaced = other.clone(memory_format=layout)
            result = kind(x, replaced, relu=True, replace_other=True)
            torch.testing.assert_close(result, (plain(x) + other).relu(), atol=1e-4, rtol=1e-4)
            assert (result.data_ptr() == replaced.data_ptr()) == (layout == torch.channels_last)


@pytest.mark.parametrize("objects", [1, 3])
def test_the_engine_agrees_on_both_networks(network, objects):
    frames, ids = draw_clip(7, 160, 192, objects)
    images, mask = tensors(frames), torch.from_numpy(ids[0])
    half = inference_dtype(torch.device("cpu"), amp=True)
    cores = [InferenceCore(each) for each in (network, fast_network(network), fast_network(network, half))]
    for t, image in enumerate(images):
        expected, quick, mixed = (core.step(image, mask if t == 0 else None) for core in cores)
        torch.testing.assert_close(quick, expected, atol=1e-3, rtol=0)
        assert mixed.dtype == torch.float32 and (mixed - expected).abs().mean() < 0.01


def test_the_conversion_leaves_the_plain_network_as_it_is(network):
    image = torch.randn(1, 3, 32, 48)
    network.train()
    before, key = {name: tensor.clone() for name, tensor in network.state_dict().items()}, network.encode_key(image).key
    fast = fast_network(network, torch.bfloat16)
    assert not fast.training and not any(weight.requires_grad for weight in fast.parameters())
    assert network.training and all(weight.requires_grad for weight in network.parameters())
    assert not any(isinstance(module, Convolution) for module in network.modules())
    weight = network.mask_encoder.attention.channel_mlp[0].weight
    assert fast_network(network).mask_encoder.attention.channel_mlp[0].weight.data_ptr() == weight.data_ptr()
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(network.encode_key(image).key, key)


def test_loading_converting_and_segmenting_work_in_inference_mode(small_checkpoint):
    frames, ids = draw_clip(3, 64, 80, 1)
    with torch.inference_mode():
        network = load_network(small_checkpoint)
        cores = InferenceCore(network), InferenceCore(fast_network(network))
        for t, image in enumerate(tensors(frames)):
            plain, fast = (core.step(image, torch.from_numpy(ids[0]) if t == 0 else None) for core in cores)
            torch.testing.assert_close(fast, plain, atol=1e-3, rtol=0)


def test_only_the_call_of_fast_network_needs_the_folder():
    paths = [path for package in ("model", "dataset", "util") for path in ROOT.glob(f"{package}/**/*.py")]
    users = [
        path
        for path in paths
        if "fast" not in path.relative_to(ROOT).parts and "model.fast" in path.read_text(encoding="utf-8")
    ]
    assert users == [ROOT / "util/evaluation/segmentation.py"]


def test_segmenting_needs_no_compiler():
    """torchvision and torch's compiler take seconds to import, and 160 MiB, which every command would pay for."""
    program = """
import sys
import torch
from model import load_network
from model.fast import fast_network
from model.inference import InferenceCore
core = InferenceCore(fast_network(load_network()))
mask = torch.zeros(64, 64, dtype=torch.uint8)
mask[16:48, 16:48] = 1
for t in range(4):
    core.step(torch.zeros(3, 64, 64), mask if t == 0 else None)
print(*({"torch._dynamo", "torchvision", "sympy"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
