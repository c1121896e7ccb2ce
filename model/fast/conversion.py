"""The conversion of a network: norms are folded, then fast blocks replace plain ones."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.blocks import FusionBlock, ResidualBlock
from model.decoder import Decoder
from model.efficientnet import EfficientNetLite0, InvertedResidual
from model.fast.blocks import (
    FastBasicBlock,
    FastBottleneck,
    FastFusionBlock,
    FastInvertedResidual,
    FastResidualBlock,
    FastResNet,
    ObjectByObject,
    ObjectwiseDecoder,
    fast_convolution,
    fast_efficientnet,
)
from model.fast.convolution import PackedConv2d
from model.fast.torch_compile import compile_network
from model.network import RDE_VOS
from model.resnet import BasicBlock, Bottleneck, ResNet

# What replaces each plain block on CPUs.
FAST_BLOCKS = {
    nn.Conv2d: fast_convolution,
    BasicBlock: FastBasicBlock,
    Bottleneck: FastBottleneck,
    ResNet: FastResNet,
    InvertedResidual: FastInvertedResidual,
    EfficientNetLite0: fast_efficientnet,
    ResidualBlock: FastResidualBlock,
    FusionBlock: FastFusionBlock,
    Decoder: ObjectwiseDecoder,
}


def fast_network(network: RDE_VOS, dtype: torch.dtype = torch.float32, *, compiler: str | None = None) -> RDE_VOS:
    """Convert a plain network to one for inference that computes the same, faster.

    - Frozen batch norms are folded into the convolutions before them.
    - On CPUs the blocks of `FAST_BLOCKS` replace the plain blocks, if this build of PyTorch has oneDNN. At high
      resolution objects are processed one by one, which takes less memory.
    - On GPUs tensors in half precision are channels last.
    - A compiler makes graphs of the plain blocks instead, on CPUs and GPUs; see `model.fast.torch_compile`.

    Unchanged weights share their memory with ``network``. To save memory, delete ``network`` if it is not needed.

    Args:
        network: a plain network, which is not modified.
        dtype: the type to compute in; see `util.device.inference_dtype`.
        compiler: a backend of ``torch.compile``, such as ``inductor``; None for no compilation.

    Returns:
        the fast network, on the device of ``network``, in eval mode, without gradients.

    Raises:
        ValueError: a batch norm does not follow a convolution.
    """
    # A deep copy with this memo copies modules, but not tensors.
    tensors: dict[int, torch.Tensor] = {id(buffer): buffer for buffer in network.buffers()}
    tensors |= {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in network.parameters()}
    fast = copy.deepcopy(network, tensors).eval()
    _fold_norms(fast)
    fast.to(dtype)
    if fast.device.type != "cpu":
        if dtype != torch.float32:
            fast.to(memory_format=torch.channels_last)
    elif PackedConv2d.available() and not compiler:
        _replace_blocks(fast)
        fast.mask_encoder.backbone = ObjectByObject(fast.mask_encoder.backbone)
    if compiler:
        compile_network(fast, compiler)
    return fast


def _fold_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution that its module registers right before it.

    Raises:
        ValueError: there is no such convolution.
    """
    before, last = "", None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            if not isinstance(last, nn.Conv2d) or last.out_channels != child.num_features:
                raise ValueError(
                    f"the norm {name!r} of {type(module).__name__} does not follow a convolution of "
                    f"{child.num_features} channels; register it right after its convolution"
                )
            setattr(module, before, fuse_conv_bn_eval(last, child))
            setattr(module, name, nn.Identity())
        else:
            _fold_norms(child)
        before, last = name, child


def _replace_blocks(module: nn.Module) -> None:
    """Replace all blocks inside a module, the innermost first, because a fast block reuses the children."""
    for name, child in module.named_children():
        _replace_blocks(child)
        if type(child) in FAST_BLOCKS:
            setattr(module, name, FAST_BLOCKS[type(child)](child))
