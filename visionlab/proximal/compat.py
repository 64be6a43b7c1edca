"""Official checkpoints of learned proximal networks (Fang et al. 2024), loaded strictly.

Three layouts, written anew from their parameter names and shapes, as potentials with the explicit
gradient: 128 x 128 images, 28 x 28 images, and vectors. The two image networks end in a layer over
all positions, so they serve one size only; their skips resize the input bilinearly without
antialiasing, which averages the central 2 x 2 pixels of each block.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from visionlab.backbones.convex import ConvexMLP
from visionlab.backbones.convex_potential import ConvexPotential, Layer
from visionlab.backbones.nonnegative import Constraint, Init
from visionlab.proximal.network import ProximalNetwork

Layout = Literal["128", "mnist", "mlp"]


class OfficialPotential(ConvexPotential):
    """The official potentials of images: one size, softplus, a last layer over all positions.

    Args:
        layout: ``"128"`` (128 x 128, seven layers) or ``"mnist"`` (28 x 28, five layers).
        in_channels: channels of the image.
        hidden: channels of the layers; the last one has 64.
        beta: sharpness of the softplus; official: 100 for ``"128"``, 10 for ``"mnist"``.
        alpha: psi is 2 alpha strongly convex; official: 1e-6 and 0.01.
        constraint: see `NonNegativeWeight`.
        init: ``"official"`` is exp(N(-10, 0.1)).
    """

    def __init__(
        self,
        layout: Literal["128", "mnist"] = "128",
        in_channels: int = 3,
        hidden: int = 256,
        *,
        beta: float = 100.0,
        alpha: float = 1e-6,
        constraint: Constraint = "project",
        init: Init = "official",
    ) -> None:
        strides: tuple[int, ...]
        if layout == "128":
            strides, self.size = (1, 2, 1, 2, 1, 2), 128
        elif layout == "mnist":
            strides, self.size = (1, 2, 1, 2), 28
        else:
            raise ValueError(f"layout is '128' or 'mnist', got {layout!r}")
        layers, pool = [], 1
        for stride in strides:
            layers.append(Layer(hidden, 3, stride, 1, pool))
            pool *= stride
        layers.append(Layer(64, self.size // pool, 1, 0, pool))
        size = self.size
        super().__init__(
            in_channels,
            layers,
            activation="softplus",
            beta=beta,
            alpha=alpha,
            pooling="centre",
            constraint=constraint,
            init=init,
        )
        self.size = self.minimum_size = size

    def check_shape(self, shape: Any) -> None:
        """Raise ValueError unless the images have the one size."""
        super().check_shape(shape)
        if tuple(shape[2:]) != (self.size, self.size):
            raise ValueError(
                f"the official network takes {self.size} x {self.size} images only, got "
                f"{shape[2]} x {shape[3]}; LearnedProximalNetwork takes any size"
            )


def load_official(
    source: str | Path | Mapping[str, Any],
    *,
    beta: float | None = None,
    alpha: float | None = None,
    noise_level: float | None = None,
) -> ProximalNetwork:
    """A network from an official checkpoint; the layout is read off the parameters.

    Args:
        source: ``.pt`` file (a state dict, or a mapping with ``model_state_dict``), or its content.
        beta: sharpness; the official value of the layout if None. It is in no checkpoint.
        alpha: strong convexity, likewise.
        noise_level: what the network was trained on.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no official layout, or negative weights that must not be.
    """
    state = _read(source)
    layout, in_channels, hidden = _recognise(state)
    if layout == "mlp":
        potential: ConvexPotential = ConvexMLP(
            in_channels,
            hidden,
            depth=len([k for k in state if k.startswith("lin.")]) - 2,
            beta=10.0 if beta is None else beta,
            alpha=0.0 if alpha is None else alpha,
        )
    else:
        usual = {"128": (100.0, 1e-6), "mnist": (10.0, 0.01)}[layout]
        potential = OfficialPotential(
            layout,
            in_channels,
            hidden,
            beta=usual[0] if beta is None else beta,
            alpha=usual[1] if alpha is None else alpha,
        )
    try:
        potential.load_state_dict(_rename(state, potential))
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"this is no official LPN checkpoint of layout {layout!r}: a parameter is missing or "
            f"has another shape ({error})"
        ) from error
    return ProximalNetwork(potential, noise_level=noise_level).eval()


def _read(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise FileNotFoundError(f"no file {source}; expected an official LPN checkpoint")
        from visionlab import checkpoint

        loaded: Mapping[str, Any] = checkpoint.read(source)
    else:
        loaded = source
    content = loaded.get("model_state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            "this is no official LPN checkpoint: expected a mapping of names to tensors, or one "
            "under 'model_state_dict'"
        )
    return {k.removeprefix("module."): v for k, v in content.items()}


def _recognise(state: Mapping[str, Tensor]) -> tuple[Layout, int, int]:
    first, last = state.get("lin.0.weight"), state.get("res.0.weight")
    if first is None or last is None:
        raise ValueError(
            "this is no official LPN checkpoint: expected parameters lin.0.weight, res.0.weight, "
            f"..., got {', '.join(list(state)[:4])}, ..."
        )
    hidden, in_channels = first.shape[:2]
    count = len([k for k in state if k.startswith("lin.") and k.endswith("weight")])
    if first.dim() == 2:
        return "mlp", in_channels, hidden
    return ("128" if count == 8 else "mnist"), in_channels, hidden


def _rename(state: Mapping[str, Tensor], potential: ConvexPotential) -> dict[str, Tensor]:
    """Official names and shapes to ours.

    A missing bias is zero. The bias of the last layer is left out: it adds a constant to psi, and
    the prior is defined up to a constant.
    """
    ours, own = {}, potential.state_dict()
    depth = len(potential.layers)
    ours["inputs.0.weight"] = state["lin.0.weight"]
    ours["inputs.0.bias"] = state.get("lin.0.bias", torch.zeros(len(state["lin.0.weight"])))
    for k in range(1, depth):
        ours[f"hidden.{k - 1}.weight"] = state[f"lin.{k}.weight"]
        ours[f"inputs.{k}.weight"] = state[f"res.{k - 1}.weight"]
        ours[f"inputs.{k}.bias"] = state[f"res.{k - 1}.bias"]
    ours[f"heads.{depth - 1}.weight"] = state[f"lin.{depth}.weight"]
    if potential.linear is not None:
        ours["linear"] = state[f"res.{depth - 1}.weight"][0]
    return {name: value.reshape(own[name].shape) for name, value in ours.items()}
