"""The official networks again, by autograd: independent twins that the compat tests compare with.

Layers, strides and names follow the description of the published architecture; the gradient is
autograd's, with a graph, as the official code takes it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OfficialTwin(nn.Module):
    """Images of ``size`` x ``size``: convolutions with resized skips, then one layer over all."""

    def __init__(self, size: int, channels: int, hidden: int, *, beta: float, alpha: float) -> None:
        super().__init__()
        large = size == 128
        strides = (2, 1, 2, 1, 2) if large else (2, 1, 2)
        last = size // 2 ** strides.count(2)
        self.lin = nn.ModuleList([nn.Conv2d(channels, hidden, 3, padding=1, bias=large)])
        self.res = nn.ModuleList()
        for stride in strides:
            self.lin.append(nn.Conv2d(hidden, hidden, 3, stride, 1, bias=False))
            self.res.append(nn.Conv2d(channels, hidden, 3, stride, 1))
        if large:
            self.lin.append(nn.Conv2d(hidden, 64, last, bias=False))
            self.res.append(nn.Conv2d(channels, 64, last))
        else:
            self.lin.append(nn.Linear(hidden * last**2, 64, bias=False))
            self.res.append(nn.Linear(channels * last**2, 64))
        self.lin.append(nn.Linear(64, 1, bias=large))
        self.large, self.last, self.beta, self.alpha = large, last, beta, alpha
        with torch.no_grad():  # weights of a size that makes every layer matter
            for layer in self.lin[1:]:
                fan = layer.weight[0].numel()
                layer.weight.uniform_(0, 2 / fan)

    def potential(self, x: Tensor) -> Tensor:
        act = nn.Softplus(beta=self.beta)
        z = act(self.lin[0](x))
        for core, skip in zip(self.lin[1:-2], self.res[:-1], strict=True):
            small = F.interpolate(x, z.shape[-2:], mode="bilinear", align_corners=False)
            z = act(core(z) + skip(small))
        small = F.interpolate(x, (self.last, self.last), mode="bilinear", align_corners=False)
        if not self.large:
            z, small = z.flatten(1), small.flatten(1)
        z = act(self.lin[-2](z) + self.res[-1](small)).flatten(1)
        return self.lin[-1](z)[:, 0] + self.alpha * x.flatten(1).square().sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return gradient(self.potential, x)


class OfficialMlpTwin(nn.Module):
    """Vectors: linear layers with linear skips, the last of which reaches the output."""

    def __init__(self, channels: int, hidden: int, layers: int, *, beta: float) -> None:
        super().__init__()
        self.lin = nn.ModuleList([nn.Linear(channels, hidden, bias=False)])
        self.lin += [nn.Linear(hidden, hidden, bias=False) for _ in range(layers)]
        self.lin.append(nn.Linear(hidden, 1, bias=False))
        self.res = nn.ModuleList([nn.Linear(channels, hidden) for _ in range(layers)])
        self.res.append(nn.Linear(channels, 1))
        self.beta = beta
        with torch.no_grad():
            for layer in self.lin[1:]:
                layer.weight.uniform_(0, 2 / layer.weight.shape[1])

    def potential(self, x: Tensor) -> Tensor:
        act = nn.Softplus(beta=self.beta)
        z = act(self.lin[0](x))
        for core, skip in zip(self.lin[1:-1], self.res[:-1], strict=True):
            z = act(core(z) + skip(x))
        return (self.lin[-1](z) + self.res[-1](x))[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return gradient(self.potential, x)


def gradient(potential, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(potential(x).sum(), x, create_graph=True)[0]
