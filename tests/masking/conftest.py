"""Every mask strategy by name, with what it needs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visionlab.masking import create_mask

OPTIONS = {
    "random": {},
    "white": {},
    "red": {},
    "blue": {},
    "green": {},
    "purple": {},
    "dog": {"sigma_weak": 0.8, "sigma_strong": 1.5},
    "profile": {"frequencies": [0.0, 0.2, 0.4], "amplitudes": [0.0, 1.0, 0.0]},
    "color": {"color": lambda f: f**2},
    "blend": {"colors": {"green": 0.7, "red": 0.3}},
    "mix": {"colors": {"green": 0.5, "white": 0.5}},
    "block": {},
    "inverse_block": {},
    "grid": {},
    "unit": {},
    "multiblock": {},
    "score": {"score_fn": lambda images: images.mean(1).flatten(1)},
    "schedule": {"stages": [{"epoch": 0, "name": "green"}, {"epoch": 5, "name": "red"}]},
    "bank": {},
}


@pytest.fixture(scope="session")
def bank_path(tmp_path_factory):
    """A small bank in the published format: one float32 array (n, M, N) in an .npz."""
    path: Path = tmp_path_factory.mktemp("bank") / "green_noise_data.npz"
    noise = np.random.default_rng(0).standard_normal((12, 70, 72)).astype(np.float32)
    np.savez(path, noise)
    return path


@pytest.fixture
def make_mask(bank_path):
    """``make_mask("green", (14, 14), 0.75)`` for every registered name."""

    def make(name, grid, ratio=0.75, **options):
        options = {**OPTIONS[name], **options}
        if name == "bank":
            options["path"] = bank_path
        return create_mask(name, grid, ratio, **options)

    return make


@pytest.fixture
def draw():
    """``draw(mask, batch_size, key=...)``: a call with whatever its kind wants besides the key."""

    def call(mask, batch_size, **kwargs):
        if mask.needs_images:
            generator = torch.Generator().manual_seed(7)
            kwargs["images"] = torch.randn(batch_size, 3, *mask.grid, generator=generator)
        return mask(batch_size, epoch=3, **kwargs)

    return call
