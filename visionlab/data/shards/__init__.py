"""Data sets packed into shards: tar files beside an index, read from a disk or any fsspec URL.

**Format.** The shards are WebDataset tars (``00000012.jpg``, ``00000012.json``, ...), which that
library, ``tar`` and every other reader of the format open. Beside them lie ``index.json`` (version,
classes, counts, sizes, SHA-256) and ``samples.npy`` (place, size, CRC-32 and label of each sample),
so that a sample can be read by its number.

**Why not the library's own reader.** What a run needs here is one order per (seed, epoch) for any
number of workers and ranks, a resume at exactly the next sample, augmentations and masks keyed by a
sample's number, and damage that is named. Read and tried with 64 samples in 8 shards:

- webdataset 1.0.2 streams: the order differs between 1 and 2 workers, nothing keeps a position,
  a flipped bit in a tar header or a truncated shard silently loses samples (57 and 61 of 64 came),
  and a ``pipe:`` URL runs a shell. Its indexed reader (wids) is no longer in the package.
- litdata 0.2.76 resumes exactly, on another number of workers, too. But its order depends on
  workers and ranks, a transform does not learn a sample's number, a flipped bit comes through
  unnoticed (no checksums), a truncated chunk ends in a time-out that blames the network, its
  serialisers unpickle, and its format is its own.

So: the common format, and a thin reader on fsspec under the loader that the rest of visionlab uses.
"""

from visionlab.registry import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CocoShards": "datasets",
        "ImageShards": "datasets",
        "Shards": "reading",
        "pack": "packing",
        "verify": "verification",
    },
)
