"""Randomness as a pure function of a key, so that a resumed run draws what it would have drawn."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_MASK = 0xFFFFFFFFFFFFFFFF


def mix(*key: int) -> int:
    """A 32-bit seed from integers, every bit of which depends on every integer.

    SplitMix64 folded over the key; 32 bits, because torch's CPU generator reads no more of a seed.
    """
    state = 0x9E3779B97F4A7C15
    for part in key:
        state = (state ^ (int(part) & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state & 0xFFFFFFFF


def seed_all(*key: int) -> None:
    """Set the global generators (Python, NumPy, torch on every device) from a key."""
    seed = mix(*key)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (timm's mixup draws from the global generator)
    torch.manual_seed(seed)


def seed_host(*key: int) -> None:
    """Set the generators of Python, NumPy and torch's CPU from a key, and those alone."""
    seed = mix(*key)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.random.default_generator.manual_seed(seed)


@contextmanager
def restored_randomness() -> Iterator[None]:
    """Put the host's generators back after a block, as they were before it."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.random.set_rng_state(states[2])


@contextmanager
def keyed_randomness(*key: int) -> Iterator[None]:
    """Run a block under generators seeded from ``key``; the global state is restored after it."""
    with restored_randomness():
        seed_host(*key)
        yield
