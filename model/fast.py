"""A copy of the network that computes the same, faster: what the engine runs.

Everything here is exact algebra or another way to run the same convolution; the plain network is the oracle.
"""

import weakref

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.encoders import KeyFeatures
from model.network import RDE_VOS

# The fast copies of the networks in use, and the state of the weights they were made of.
_copies: weakref.WeakKeyDictionary[RDE_VOS, dict[torch.dtype, tuple[tuple, RDE_VOS]]] = weakref.WeakKeyDictionary()


def fast_network(network: RDE_VOS, dtype: torch.dtype = torch.float32) -> RDE_VOS:
    """The network for inference, in a precision; made once for each, and again when the weights have changed.

    - Frozen batch norms are folded into the convolutions before them.
    - Half precision weights are cast once, and the backbones' and all half precision tensors have their channels last.
    - On CPUs objects pass one by one, which is faster than a batch there and takes less memory, and outside the
      backbones the 3×3 convolutions that gain from it run as Winograd convolutions (NNPACK). Those know fp32 only and
      still outrun bf16 in the decoder, which is nothing but such convolutions.

    Weights that stay as they are share their memory with ``network``.
    """
    tensors = network.state_dict().values()
    state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
    copies = _copies.setdefault(network, {})
    if dtype not in copies or copies[dtype][0] != state:
        copies[dtype] = (state, _make(network, dtype))
    return copies[dtype][1]


def _make(network: RDE_VOS, dtype: torch.dtype) -> RDE_VOS:
    with torch.device("meta"):
        copy = RDE_VOS(network.config)
    copy.load_state_dict(network.state_dict(), assign=True)
    copy.eval().requires_grad_(False)
    _fold_norms(copy)
    copy.to(dtype)
    backbones = (copy.key_encoder.backbone, copy.mask_encoder.backbone)
    for module in backbones if dtype == torch.float32 else [copy]:
        module.to(memory_format=torch.channels_last)
    if next(copy.parameters()).device.type != "cpu":
        return copy
    copy.mask_encoder.objects_at_once = copy.decoder.objects_at_once = 1
    if torch.backends.nnpack.is_available():
        if dtype == torch.float32:
            _use_winograd(copy, leave=backbones)
        else:
            copy.decoder.load_state_dict(network.decoder.state_dict(), assign=True)
            _use_winograd(copy.decoder.requires_grad_(False))
            copy.decoder = SinglePrecisionDecoder(copy.decoder)
    return copy


def _fold_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it; torchvision's names say which one that is."""
    children = dict(module.named_children())
    for name, child in children.items():
        if isinstance(child, nn.BatchNorm2d):
            before = str(int(name) - 1) if name.isdigit() else name.replace("bn", "conv")
            setattr(module, before, fuse_conv_bn_eval(children[before], child))
            setattr(module, name, nn.Identity())
        else:
            _fold_norms(child)


def _use_winograd(module: nn.Module, leave: tuple[nn.Module, ...] = ()) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and WinogradConv2d.suits(child):
            setattr(module, name, WinogradConv2d(child))
        elif child not in leave:
            _use_winograd(child, leave)


class SinglePrecisionDecoder(nn.Module):
    """Decodes in fp32 what was encoded in half precision."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, readout: Tensor, features: KeyFeatures) -> Tensor:
        """As `model.decoder.Decoder`."""
        return self.decoder(readout.float(), KeyFeatures(*(feature.float() for feature in features)))


class WinogradConv2d(nn.Module):
    """A 3×3 convolution of stride 1 by NNPACK, where the frame is large enough for it to be the faster one."""

    # NNPACK transforms the kernel at every call, which pays from about this many positions on; measured against
    # oneDNN with AVX-512, where from 30×54 positions on it takes 0.3 to 0.9 of the time.
    LEAST_POSITIONS = 1500

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    @staticmethod
    def suits(conv: nn.Conv2d) -> bool:
        """Whether NNPACK can run it, and has enough channels to gain from."""
        plain = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        if plain != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
            return False
        return min(conv.in_channels, conv.out_channels) >= 64 and conv.in_channels <= 8 * conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,h,w]."""
        if x.shape[2] * x.shape[3] < self.LEAST_POSITIONS:
            return self.conv(x)
        weight, bias = self.conv.weight, self.conv.bias
        # With a batch above one it is no faster than oneDNN.
        results = [torch._nnpack_spatial_convolution(one, weight, bias, [1, 1], [1, 1]) for one in x.split(1)]
        return results[0] if len(results) == 1 else torch.cat(results)
