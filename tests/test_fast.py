"""The fast copy of the network, and the convolutions that it is made of, against the plain ones."""

import functools
import itertools
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import ROOT, SMALL, draw_clip, tensors
from model import RDE_VOS, compiled
from model.compiled import CompiledConv2d
from model.convolution import (
    Conv2d,
    NNPACKConv2d,
    OneChannelConv2d,
    PackedConv2d,
    WinogradConv2d,
    finish,
    gains_from_winograd,
    trains_by_nnpack,
)
from model.fast import fast_network
from model.inference import InferenceCore
from plain import PlainCore


def can_compile(dtype: torch.dtype) -> bool:
    return CompiledConv2d.possible(nn.Conv2d(64, 64, 3, padding=1, dtype=dtype))


def write_compilers(folder: Path, program: str) -> None:
    for name in ("cc", "gcc"):
        (folder / name).write_text(f"#!/bin/sh\n{program}\n")
        (folder / name).chmod(0o755)


needs_compiler = pytest.mark.skipif(not can_compile(torch.float32), reason="no C compiler here")


@pytest.fixture(params=[pytest.param(True, marks=needs_compiler), False], ids=["compiled", "torch"])
def network(request, monkeypatch) -> RDE_VOS:
    """A network whose norms do something, as those of trained networks do; with a C compiler and without."""
    if not request.param:
        monkeypatch.setattr(compiled, "_library", lambda dtype: None)
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
    assert (CompiledConv2d in kinds) == (compiled._library(torch.float32) is not None)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    image, masks = torch.randn(frames, 3, 64, 96), torch.rand(frames, 3, 64, 96)
    features, fast_features = network.encode_key(image), fast.encode_key(image)
    for plain, quick in zip(features, fast_features, strict=True):
        torch.testing.assert_close(quick, plain, atol=1e-4, rtol=1e-4)
    value, fast_value = (n.encode_value(image, n.prepare_encoding(features.f16), masks) for n in (network, fast))
    torch.testing.assert_close(fast_value, value, atol=1e-4, rtol=1e-4)
    logit, fast_logit = (n.decode(value, n.prepare_decoding(features)) for n in (network, fast))
    torch.testing.assert_close(fast_logit, logit, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="this PyTorch has no NNPACK")
@pytest.mark.parametrize(("channels", "size"), [((64, 64), (40, 41)), ((96, 72), (30, 54)), ((64, 128), (8, 8))])
@torch.inference_mode()
def test_nnpack_is_the_convolution(channels, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 3, padding=1)
    assert gains_from_winograd(conv)
    x = torch.randn(2, channels[0], *size)
    torch.testing.assert_close(NNPACKConv2d(conv)(x), conv(x), atol=1e-4, rtol=1e-4)
    # Channels-last tensors come out of the backbones.
    x = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(NNPACKConv2d(conv)(x), conv(x), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="this PyTorch has no NNPACK")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("channels", "images", "size"), [((256, 288), 2, (45, 46)), ((288, 256), 1, (63, 64))])
def test_nnpack_has_the_gradients_of_the_convolution(channels, images, size, bias):
    torch.manual_seed(0)
    conv = Conv2d(*channels, 3, padding=1, bias=bias)
    x, other = torch.randn(images, channels[0], *size), torch.randn(images, channels[1], *size)
    assert trains_by_nnpack(conv, x)
    assert not trains_by_nnpack(conv, x.bfloat16()) and not trains_by_nnpack(conv, x[:, :, :40, :40])
    with torch.no_grad():
        assert not trains_by_nnpack(conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not trains_by_nnpack(conv, x)
    plain = nn.Conv2d(*channels, 3, padding=1, bias=bias)
    plain.load_state_dict(conv.state_dict())
    x_of_plain = x.clone().requires_grad_()
    # Without the ReLU, whose gradient jumps where results are as good as zero.
    result, expected = conv(x.requires_grad_(), other), plain(x_of_plain) + other
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    weights = torch.randn_like(result)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, x_of_plain.grad, atol=1e-4, rtol=1e-3)
    for ours, theirs in zip(conv.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-2, rtol=1e-3)  # sums of thousands of products
    # A fixed input, as at the border of a frozen part, asks for no gradient.
    conv(x.detach()).sum().backward()


@pytest.mark.skipif(not PackedConv2d.available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("channels", "size"),
    [((64, 64), (75, 80)), ((96, 72), (80, 81)), ((64, 128), (113, 54)), ((64, 96), (8, 8)), ((64, 64), (1, 3))],
)
@torch.inference_mode()
def test_winograd_is_the_convolution(channels, size, bias, monkeypatch):
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 3, padding=1, bias=bias)
    assert gains_from_winograd(conv)
    x = torch.randn(2, channels[0], *size)
    exact = conv(x)
    # In fp32 it shows that the algebra is right, in bands of any height: as by default, of one, three and all rows.
    other = torch.randn_like(exact)
    columns = -(-size[1] // 4)
    for band_bytes in (WinogradConv2d.BAND_BYTES, 1, 3 * 36 * columns * max(channels) * 4, 1 << 40):
        monkeypatch.setattr(WinogradConv2d, "BAND_BYTES", band_bytes)
        torch.testing.assert_close(WinogradConv2d(conv)(x), exact, atol=1e-4, rtol=1e-4)
        result = WinogradConv2d(conv)(x, other.clone(), replace_other=True)
        torch.testing.assert_close(result, exact + other, atol=1e-4, rtol=1e-4)
    # In 16 bits it loses about as much as its documentation says.
    half = WinogradConv2d(conv.bfloat16())(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - exact).norm() < 0.02 * exact.norm()


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
    monkeypatch.setattr(compiled, "_library", functools.cache(compiled._library.__wrapped__))
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 3, padding=1, bias=size[0] != 40)
    if not can_compile(dtype):
        assert dtype == torch.bfloat16
        pytest.skip("these processors do not multiply bf16")
    x = torch.randn(2, channels[0], *size)
    exact = conv(x)
    other = torch.randn_like(exact)
    # As it is, where oneDNN computes small frames; then all kernels and few tiles at once, all tiles and one block of
    # kernels, and one group of tiles and one block.
    bound = 1e-5 if dtype == torch.float32 else 0.02
    for least, kernels, tiles in ((400, 1 << 24, 1 << 21), (0, 1 << 24, 1 << 21), (0, 1, 1 << 25), (0, 1, 1)):
        monkeypatch.setattr(CompiledConv2d, "LEAST_POSITIONS", least)
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
    for wrong in (
        (x.bfloat16(),),
        (x.double(),),
        (other,),
        (x, x),
        (x, other.half()),
        (x, other[..., :4]),
        (x, other[:0]),
    ):
        with pytest.raises(ValueError):
            conv(*wrong)
    assert not CompiledConv2d.possible(nn.Conv2d(64, 72, 3, padding=1))
    assert not CompiledConv2d.possible(nn.Conv2d(64, 64, 3, padding=1).double())


@pytest.mark.parametrize("program", [None, "exit 1", "exit 0"])
def test_a_compiler_that_fails_is_as_good_as_none(program, monkeypatch, tmp_path):
    if program is not None:
        write_compilers(tmp_path, program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiled._library.__wrapped__(torch.float32) is None


@needs_compiler
def test_a_temporary_folder_that_is_missing_is_as_good_as_no_compiler(monkeypatch, tmp_path):
    assert compiled._library.__wrapped__(torch.float32) is not None
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert compiled._library.__wrapped__(torch.float32) is None


@torch.inference_mode()
def test_a_convolution_does_what_follows_it_and_leaves_the_other_tensor_alone():
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 96, 3, padding=1)
    conv = Conv2d(64, 96, 3, padding=1)
    conv.load_state_dict(plain.state_dict())
    x, other = torch.randn(1, 64, 80, 76), torch.randn(1, 96, 80, 76)
    kept = other.clone()
    kinds = [conv, NNPACKConv2d(plain)] + [PackedConv2d.of(plain), WinogradConv2d(plain)] * PackedConv2d.available()
    kinds += [CompiledConv2d(plain)] * can_compile(torch.float32)
    for kind in kinds:
        for relu_first, relu in itertools.product((False, True), repeat=2):
            for summand in (None, other):
                expected = finish(plain(x.relu() if relu_first else x), summand, relu)
                result = kind(x, summand, relu_first=relu_first, relu=relu)
                torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(other, kept)
        # Where it may replace it, the result is the same.
        for layout in (torch.contiguous_format, torch.channels_last):
            replaced = other.clone(memory_format=layout)
            result = kind(x, replaced, relu=True, replace_other=True)
            torch.testing.assert_close(result, finish(plain(x), other, True), atol=1e-4, rtol=1e-4)
            if isinstance(kind, CompiledConv2d | WinogradConv2d | PackedConv2d) and layout == torch.channels_last:
                assert result.data_ptr() == replaced.data_ptr()


@pytest.mark.skipif(not PackedConv2d.available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3, "padding": 4, "dilation": 4, "bias": False},
        {"kernel_size": 7, "padding": 3, "stride": 2},
    ],
)
@torch.inference_mode()
def test_packed_weights_are_the_convolution_at_every_size(settings):
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 24, **settings)
    packed = PackedConv2d.of(conv)
    for batch, height, width in ((1, 40, 56), (2, 25, 31), (1, 40, 56)):
        x = torch.randn(batch, 5, height, width)
        torch.testing.assert_close(packed(x), conv(x), atol=1e-4, rtol=1e-4)


def test_one_channel_is_the_convolution():
    torch.manual_seed(0)
    conv = OneChannelConv2d(24)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 24, 17, 30).contiguous(memory_format=layout).requires_grad_()
        plain = F.conv2d(x, conv.weight, conv.bias, padding=1)
        torch.testing.assert_close(conv(x), plain, atol=1e-5, rtol=1e-5)
        weights = torch.randn_like(plain)
        gradients = (torch.autograd.grad((y * weights).sum(), (x, *conv.parameters())) for y in (conv(x), plain))
        for ours, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_winograd_is_for_some_convolutions():
    assert gains_from_winograd(nn.Conv2d(64, 64, 3, padding=1))
    for arguments, settings in (
        ((64, 64, 1), {}),
        ((64, 64, 3), {"padding": 1, "stride": 2}),
        ((64, 64, 3), {"padding": 2, "dilation": 2}),
        ((64, 64, 3), {"padding": 0}),
        ((64, 1, 3), {"padding": 1}),
    ):
        assert not gains_from_winograd(nn.Conv2d(*arguments, **settings))


@pytest.mark.parametrize("objects", [1, 3])
def test_the_engine_agrees_with_the_plain_one(network, objects):
    """Large enough a frame for NNPACK to run, and wide enough a network for Winograd convolutions."""
    frames, ids = draw_clip(7, 160, 192, objects)
    images, mask = tensors(frames), torch.from_numpy(ids[0])
    plain, fast, half = PlainCore(network), InferenceCore(network), InferenceCore(network, amp=True)
    for t, image in enumerate(images):
        expected, quick, mixed = (core.step(image, mask if t == 0 else None) for core in (plain, fast, half))
        torch.testing.assert_close(quick, expected, atol=1e-3, rtol=0)
        assert mixed.dtype == torch.float32 and (mixed - expected).abs().mean() < 0.01


def test_one_copy_serves_until_the_weights_change(network):
    first = fast_network(network)
    assert fast_network(network) is first and fast_network(network, torch.bfloat16) is not first
    with torch.no_grad():
        network.decoder.predict.bias += 1
    second = fast_network(network)
    assert second is not first
    assert torch.equal(second.decoder.predict.bias, network.decoder.predict.bias)


def test_a_fast_network_is_returned_as_it_is(network):
    fast = fast_network(network)
    assert fast_network(fast) is fast
    with pytest.raises(ValueError, match="bfloat16"):
        fast_network(fast, torch.bfloat16)


def test_bank_f_encodes_no_updates(network):
    frames, ids = draw_clip(7, 64, 80, 1)
    core = InferenceCore(network, bank="F", mem_every=2)
    core.step(tensors(frames)[0], torch.from_numpy(ids[0]))
    core.network.encode_value = None  # would fail if it was called
    for image in tensors(frames)[1:]:
        core.step(image)


def test_segmenting_needs_no_compiler():
    """torchvision and torch's compiler take seconds to import, and 160 MiB, which every command would pay for."""
    program = """
import sys
import torch
from model import load_network
from model.checkpoint import SHIPPED_WEIGHTS
from model.inference import InferenceCore
core = InferenceCore(load_network(SHIPPED_WEIGHTS))
mask = torch.zeros(64, 64, dtype=torch.uint8)
mask[16:48, 16:48] = 1
for t in range(4):
    core.step(torch.zeros(3, 64, 64), mask if t == 0 else None)
print(*({"torch._dynamo", "torchvision", "sympy"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
