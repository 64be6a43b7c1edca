"""What is packed: the listing of the readers, a keyed order, a fingerprint, rows of shards."""

import os

import pytest
from shard_sets import copy_of

from visionlab.data import ImageFolder
from visionlab.data.shards.sources import image_folder, shard_rows


def test_a_folder_is_listed_as_its_reader_lists_it(folder):
    read, source = ImageFolder(folder), image_folder(folder)
    assert source.classes == read.classes
    assert [(s.path, s.label) for s in source.samples] == [
        (os.path.relpath(path, folder), label) for path, label in read.samples
    ]


def test_the_order_is_a_permutation_of_its_seed(folder):
    source = image_folder(folder)
    numbers = list(range(len(source.samples)))
    assert source.order(None) == numbers
    assert sorted(source.order(0)) == numbers
    assert source.order(0) == source.order(0) != source.order(1)


def test_the_fingerprint_tells_names_and_sizes_apart(folder, tmp_path):
    copy = copy_of(folder, tmp_path / "pictures")
    whole = image_folder(copy).fingerprint()
    assert whole == image_folder(folder).fingerprint()  # the place does not count
    picture = copy / "class1" / "001.JPEG"
    picture.write_bytes(picture.read_bytes() + b"\0")
    longer = image_folder(copy).fingerprint()
    picture.rename(picture.with_name("zzz.JPEG"))
    renamed = image_folder(copy).fingerprint()
    assert len({whole, longer, renamed}) == 3


@pytest.mark.parametrize(("count", "each"), [(1, 5), (5, 5), (11, 5), (0, 3)])
def test_rows_are_cut_without_gap(count, each):
    rows = shard_rows(count, each)
    assert [i for r in rows for i in r] == list(range(count))
    assert all(len(r) == each for r in rows[:-1])


def test_a_shard_holds_at_least_one_sample():
    with pytest.raises(ValueError, match="0 samples in a shard; expected at least 1"):
        shard_rows(3, 0)
