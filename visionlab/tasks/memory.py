"""Memory that training on a CPU frees is kept for the next step."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of handing them back to the system.

    By default every tensor of more than 32 MB is mapped anew, and the pages of smaller ones are
    given back and faulted in again at each step: a third of the time of a convolutional training
    step on a CPU (measured: 333 against 204 ms). The process then keeps its peak memory.

    Returns:
        Whether this system has such a setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    largest = 2**31 - 1
    return bool(mallopt(_M_MMAP_THRESHOLD, 2**30) and mallopt(_M_TRIM_THRESHOLD, largest))
