"""A copy of the network that computes the same, faster: what the engine runs.

Everything here is exact algebra or another way to run the same convolution; the plain network is the oracle.
"""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.compiled import CompiledConv2d
from model.convolution import NNPACKConv2d, OneChannelConv2d, PackedConv2d, WinogradConv2d, gains_from_winograd
from model.network import RDE_VOS, empty_network
from model.resnet import BasicBlock, Bottleneck
from util import lasting_memory

# The fast copies of the networks in use, and the state of the weights they were made of.
_copies: weakref.WeakKeyDictionary[RDE_VOS, dict[torch.dtype, tuple[tuple, RDE_VOS]]] = weakref.WeakKeyDictionary()


def fast_network(network: RDE_VOS, dtype: torch.dtype = torch.float32) -> RDE_VOS:
    """The network for inference, in a precision; made once for each, and again when the weights have changed.

    - Frozen batch norms are folded into the convolutions before them.
    - On CPUs objects pass one by one where the resolution is high, which takes less memory. Convolutions run in
      oneDNN's own layout, with the additions and ReLUs that follow (`PackedConv2d`), and the 3×3 ones that gain from
      it by Winograd's method (`CompiledConv2d`).
    - Where there is no C compiler, those outside the backbones are Winograd convolutions of torch's parts: with
      transformed weights where they run for every frame (`WinogradConv2d`), and in fp32 without in the up blocks,
      where NNPACK is as fast, and on updates (`NNPACKConv2d`).
    - On GPUs half precision tensors have their channels last.

    Weights that stay as they are share their memory with ``network``. Where nobody needs ``network`` itself any more,
    let go of it: a fast network may be given again, and is returned as it is.

    Raises:
        ValueError: ``network`` is a fast network in another precision.
    """
    made_for = getattr(network, "made_for", None)
    if made_for is not None:
        if made_for != dtype:
            raise ValueError(f"this network was made for {made_for}; start from the plain one to run in {dtype}")
        return network
    tensors = network.state_dict().values()
    state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
    copies = _copies.setdefault(network, {})
    if dtype not in copies or copies[dtype][0] != state:
        copies[dtype] = (state, _make(network, dtype))
    return copies[dtype][1]


@lasting_memory()
def _make(network: RDE_VOS, dtype: torch.dtype) -> RDE_VOS:
    copy = empty_network(network.config)
    copy.load_state_dict(network.state_dict(), assign=True)
    copy.eval().requires_grad_(False)
    copy.made_for = dtype
    _fold_norms(copy)
    copy.to(dtype)
    if next(copy.parameters()).device.type != "cpu":
        return copy.to(memory_format=torch.channels_last) if dtype != torch.float32 else copy
    copy.mask_encoder.objects_at_once = copy.decoder.objects_at_once = 1
    nnpack = dtype == torch.float32 and torch.backends.nnpack.is_available()
    if PackedConv2d.available():
        for encoder in (copy.key_encoder, copy.mask_encoder):
            _fuse_backbone(encoder.backbone)
        # These run for every frame, which is worth the memory of transformed weights.
        _replace_convolutions(copy.key_encoder, WinogradConv2d)
        _replace_convolutions(copy.decoder.compress if nnpack else copy.decoder, WinogradConv2d)
    _replace_convolutions(copy, NNPACKConv2d if nnpack else None)
    return copy


def _fold_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it; their names say which one that is."""
    children = dict(module.named_children())
    for name, child in children.items():
        if isinstance(child, nn.BatchNorm2d):
            before = str(int(name) - 1) if name.isdigit() else name.replace("bn", "conv")
            setattr(module, before, fuse_conv_bn_eval(children[before], child))
            setattr(module, name, nn.Identity())
        else:
            _fold_norms(child)


def _fuse_backbone(backbone: nn.Module) -> None:
    """Let the convolutions of a backbone with folded norms do what follows them, too."""
    backbone.conv1, backbone.relu = WithReLU(PackedConv2d.of(backbone.conv1)), nn.Identity()
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3):
        for name, block in stage.named_children():
            setattr(stage, name, FusedBlock(block))


def _replace_convolutions(module: nn.Module, winograd: Callable[[nn.Conv2d], nn.Module] | None) -> None:
    """Compile a module's convolutions that gain from Winograd's method, or make them of this kind; pack the others."""
    for name, child in module.named_children():
        if isinstance(child, OneChannelConv2d | NNPACKConv2d):
            continue  # as it should be
        if not isinstance(child, nn.Conv2d):
            _replace_convolutions(child, winograd)
        else:
            setattr(module, name, _fastest(child, winograd))


def _fastest(conv: nn.Conv2d, winograd: Callable[[nn.Conv2d], nn.Module] | None = None) -> nn.Module:
    """The same convolution, compiled, of the kind for Winograd's method, or packed: the first that is possible."""
    if CompiledConv2d.possible(conv):
        return CompiledConv2d(conv)
    if winograd is not None and gains_from_winograd(conv):
        return winograd(conv)
    return PackedConv2d.of(conv) if PackedConv2d.available() else conv


class WithReLU(nn.Module):
    """A convolution and the ReLU after it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(conv(x))."""
        return self.conv(x, relu=True)


class FusedBlock(nn.Module):
    """A backbone's block with folded norms, its additions and ReLUs done by its convolutions.

    Where nothing changes on the shortcut, the result takes the place of the input.
    """

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_fastest(conv) for conv in block.convolutions())
        shortcut = block.downsample
        self.shortcut = PackedConv2d.of(shortcut[0]) if isinstance(shortcut, nn.Sequential) else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """As the block."""
        shortcut = self.shortcut(x)
        for conv in self.convs[:-1]:
            x = conv(x, relu=True)
        return self.convs[-1](x, shortcut, relu=True, replace_other=True)
