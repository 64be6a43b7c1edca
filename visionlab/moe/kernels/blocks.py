"""Block sizes of the kernels."""

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# the interpreter runs one program after the other: small blocks there, so that tests cross edges
TOKENS = 32 if INTERPRETED else 128
"""Tokens of one routing program."""
TILE = 16 if INTERPRETED else 128
"""Sorted rows of one tile; a tile belongs to one expert."""
ROWS = 16
"""Tokens of one row-moving program."""


def cdiv(a: int, b: int) -> int:
    """Blocks of b that cover a."""
    return -(-a // b)


def power_of_2(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and ``least``."""
    return max(least, 1 << (n - 1).bit_length())


def chunk(width: int, most: int = 256) -> int:
    """Columns of one pass over a row: a power of two from 16 to ``most``, masked at the end."""
    return min(power_of_2(width, 16), most)
