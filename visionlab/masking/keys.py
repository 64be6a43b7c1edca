"""Random numbers as pure functions of a key; the global generators are never touched.

Two ways to draw, one interface (``uniform``, ``normal``, each of shape (batch, n)):

* :class:`GeneratorDraws`, key = (seed, rank, step): a torch generator seeded with a hash of the
key. Fast.
* :class:`IndexedDraws`, key = (seed, epoch) and one sample index per row: a counter-based hash
  (SplitMix64, Steele et al. 2014). A row depends on its own index alone, so any split of the
  batch, any number of ranks and any device give the same bits. Its normals are integers on a fixed
  scale, which lets a matrix product in float64 be exact, hence independent of the order of
  summation.
"""

import operator
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_WORD = (1 << 64) - 1

NORMAL_SCALE = 1 << 12  # an indexed normal z is stored as round(z * NORMAL_SCALE)


class Draws(Protocol):
    """What a mask strategy may ask for; every call continues the stream."""

    batch_size: int
    device: torch.device
    exact: bool

    def uniform(self, n: int) -> Tensor:
        """Uniform numbers in [0, 1), shape (batch, n)."""
        ...

    def normal(self, n: int) -> Tensor:
        """Standard normal numbers, (batch, n); times ``NORMAL_SCALE`` and integer if ``exact``."""
        ...

    def shared(self) -> float:
        """One uniform number for the whole batch, a function of the key alone."""
        ...


def _mix(word: int) -> int:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1)):
        word = ((word ^ (word >> shift)) * multiplier) & _WORD
    return word


def fold(key: int | Iterable[int]) -> int:
    """Hash a tuple of integers to 64 bits; (1, 2) and (2, 1) and (1, 2, 0) all differ.

    Raises:
        TypeError: the key is not made of integers.
    """
    try:
        numbers = [operator.index(k) for k in (key if isinstance(key, Iterable) else (key,))]
    except TypeError:
        raise TypeError(
            f"a mask key is a tuple of integers such as (seed, rank, step), got {key!r}"
        ) from None
    if not numbers:
        raise TypeError("a mask key is a tuple of integers such as (seed, rank, step), got ()")
    word = _mix(len(numbers) * _GOLDEN & _WORD)
    for number in numbers:
        word = _mix(((word ^ (number & _WORD)) + _GOLDEN) & _WORD)
    return word


class GeneratorDraws:
    """Draws of one batch from a torch generator on the device (see the module's text)."""

    exact = False

    def __init__(self, key: int | Iterable[int], batch_size: int, device: torch.device) -> None:
        self.batch_size, self.device = batch_size, device
        self._word = fold(key)
        # CPU generators read 32 bits of the seed only: the hash is folded into them
        seed = (self._word ^ (self._word >> 32)) & 0xFFFFFFFF
        self._generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, n: int) -> Tensor:
        """See `Draws.uniform`."""
        return torch.rand(self.batch_size, n, generator=self._generator, device=self.device)

    def normal(self, n: int) -> Tensor:
        """See `Draws.normal`."""
        return torch.randn(self.batch_size, n, generator=self._generator, device=self.device)

    def shared(self) -> float:
        """See `Draws.shared`."""
        self._word = _mix((self._word + _GOLDEN) & _WORD)
        return (self._word >> 11) / (1 << 53)


class IndexedDraws:
    """Draws of which row ``i`` depends on (key, index[i]) alone (see the module's text)."""

    exact = True

    def __init__(self, key: int | Iterable[int], index: Tensor) -> None:
        self.batch_size, self.device = len(index), index.device
        self._word = fold(key)
        start = _mix_tensor(index.to(torch.int64) * _signed(_GOLDEN) + _signed(self._word))
        self._start = start[:, None]
        self._used = 0

    def _words(self, n: int) -> Tensor:
        """The next ``n`` 64-bit words of each row, (batch, n) int64."""
        counter = torch.arange(self._used + 1, self._used + n + 1, device=self.device)
        self._used += n
        return _mix_tensor(self._start + counter * _signed(_GOLDEN))

    def uniform(self, n: int) -> Tensor:
        """See `Draws.uniform`."""
        return _shift_right(self._words(n), 11).double() * 2.0**-53

    def normal(self, n: int) -> Tensor:
        """See `Draws.normal`."""
        words = self._words((n + 3) // 4)
        lanes = torch.stack([(words >> (16 * k)) & 0xFFFF for k in range(4)], dim=-1).flatten(1)
        return _normal_table(str(self.device))[lanes[:, :n]]

    def shared(self) -> float:
        """See `Draws.shared`."""
        self._word = _mix((self._word + _GOLDEN) & _WORD)
        return (self._word >> 11) / (1 << 53)


@lru_cache(maxsize=8)
def _normal_table(device: str) -> Tensor:
    """Normal quantiles at the 65,536 mid-points, as integers on NORMAL_SCALE in float64."""
    points = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
    return torch.round(torch.special.ndtri(points) * NORMAL_SCALE).to(device)


def _signed(word: int) -> int:
    """A 64-bit word as the int64 of the same bits."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """Logical shift: int64's own shift would copy the sign bit."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(words: Tensor) -> Tensor:
    """:func:`_mix` on int64 tensors, whose products wrap."""
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1)):
        words = (words ^ _shift_right(words, shift)) * _signed(multiplier)
    return words
