"""The blocks that models of the YOLOv5 and YOLOX families are made of.

Shape legend: every block maps (N, in_channels, H, W) to (N, out_channels, H', W'); H' and W' differ from H and W only
for a ConvNormAct with a stride.
"""

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

# The published weights were trained with these values instead of PyTorch's defaults, 1e-5 and 0.1.
NORM_EPS = 1e-3
NORM_MOMENTUM = 0.03


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, SiLU ("swish"; Elfwing et al. 2018, Ramachandran et al. 2017)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        padding: int | None = None,
        *,
        groups: int = 1,
        norm: str = "BN",
    ):
        """
        Args:
            padding: pixels on each side; None stands for ``kernel_size // 2``.
            norm: "BN" or "SyncBN".
        """
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = get_norm(norm, out_channels)
        self.norm.eps = NORM_EPS
        self.norm.momentum = NORM_MOMENTUM
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class DepthwiseConvNormAct(nn.Module):
    """Depthwise separable convolution: 3x3 within each channel, then 1x1 across channels, each with norm and SiLU.

    Howard et al., "MobileNets", 2017, Sec. 3.1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, norm: str = "BN"):
        super().__init__()
        self.depthwise = ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels, norm=norm)
        self.pointwise = ConvNormAct(in_channels, out_channels, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def conv3x3(
    in_channels: int, out_channels: int, stride: int = 1, *, depthwise: bool, norm: str = "BN"
) -> ConvNormAct | DepthwiseConvNormAct:
    """Make a 3x3 convolution with norm and SiLU; if ``depthwise``, the cheaper depthwise separable one."""
    if depthwise:
        return DepthwiseConvNormAct(in_channels, out_channels, stride, norm=norm)
    return ConvNormAct(in_channels, out_channels, 3, stride, norm=norm)


def fuse_conv_norm(model: nn.Module) -> nn.Module:
    """Fold the batch norms of all :class:`ConvNormAct` and detectron2's ``Conv2d`` into the convolutions, in place.

    For inference only: the outputs are the same except for rounding, but afterwards the model can neither be trained
    nor saved as a checkpoint.

    Args:
        model: in eval mode. A second call changes nothing.

    Returns:
        ``model``.
    """
    for block in model.modules():
        if isinstance(block, ConvNormAct) and not isinstance(block.norm, nn.Identity):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()
        elif isinstance(block, Conv2d) and isinstance(
            block.norm, nn.BatchNorm2d | nn.SyncBatchNorm | FrozenBatchNorm2d
        ):
            fused = fuse_conv_bn_eval(block, block.norm)
            block.weight, block.bias, block.norm = fused.weight, fused.bias, None
    return model


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution of equal width; ``shortcut`` adds the input (ResNet: He et al. 2016, Fig. 5)."""

    def __init__(self, channels: int, *, shortcut: bool, depthwise: bool = False, norm: str = "BN"):
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, norm=norm)
        self.conv2 = conv3x3(channels, channels, depthwise=depthwise, norm=norm)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return x + out if self.shortcut else out


class C3(nn.Module):
    """Cross-stage partial block (CSPNet: Wang et al. 2020, Sec. 3.2) with three 1x1 convolutions.

    ``conv1`` feeds the bottlenecks, ``conv2`` bypasses them, ``conv3`` gets the channels of both, bottlenecks first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        *,
        shortcut: bool,
        depthwise: bool = False,
        norm: str = "BN",
    ):
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvNormAct(in_channels, hidden, norm=norm)
        self.conv2 = ConvNormAct(in_channels, hidden, norm=norm)
        self.conv3 = ConvNormAct(2 * hidden, out_channels, norm=norm)
        self.blocks = nn.Sequential(
            *(Bottleneck(hidden, shortcut=shortcut, depthwise=depthwise, norm=norm) for _ in range(num_blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat([self.blocks(self.conv1(x)), self.conv2(x)], dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling (He et al. 2015): three chained 5x5 max pools, which act as 5x5, 9x9 and 13x13 ones."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str = "BN"):
        super().__init__()
        hidden = in_channels // 2
        self.conv1 = ConvNormAct(in_channels, hidden, norm=norm)
        self.conv2 = ConvNormAct(4 * hidden, out_channels, norm=norm)
        self.pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        outs = [self.conv1(x)]
        for _ in range(3):
            outs.append(self.pool(outs[-1]))
        return self.conv2(torch.cat(outs, dim=1))


def upsample_nearest(x: Tensor) -> Tensor:
    """Upsample (N, C, H, W) to (N, C, 2H, 2W) by repeating each value four times; return it in channels_last order.

    ``F.interpolate`` gives the same output, but its gradient on CUDA may differ from run to run. The gradient of this
    function is a plain sum.
    """
    n, c, h, w = x.shape
    repeated = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(n, h, 2, w, 2, c)
    return repeated.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
