"""Shards as written: plain tars, and pictures encoded again."""

import json
import tarfile

import pytest
from PIL import Image
from shard_sets import COUNT, copy_of

from visionlab.data import ImageShards
from visionlab.data.shards import packing
from visionlab.data.shards.sources import image_folder
from visionlab.data.shards.writing import Encoding, encode


def test_shards_are_tars_that_any_reader_opens(packed):
    labels, number = ImageShards(str(packed)), 0
    for path in sorted(packed.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for image, meta in zip(members[::2], members[1::2], strict=True):
                assert (
                    image.name.partition(".")[0] == meta.name.partition(".")[0] == f"{number:08d}"
                )
                assert meta.name.endswith(".json")
                assert (
                    json.loads(tar.extractfile(meta).read())["label"] == labels.shards[number].label
                )
                assert tar.extractfile(image).read() == labels.shards[number].image
                number += 1
    assert number == COUNT


def test_quality_and_side_of_an_encoding(tmp_path):
    Image.effect_noise((200, 120), 60).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    coarse, fine = (encode(data, ".jpg", Encoding(64, q))[0] for q in (30, 95))
    assert len(coarse) < len(fine)
    assert encode(data, ".jpg", Encoding()) == (data, ".jpg")
    for wrong, text in ((Encoding, "shorter side 0"), (lambda n: Encoding(8, n), "JPEG quality 0")):
        with pytest.raises(ValueError, match=text):
            wrong(0)


def test_a_picture_that_vanishes_while_packing(folder, tmp_path):
    copy = copy_of(folder, tmp_path / "pictures")
    source = image_folder(copy)
    fingerprint = source.fingerprint()
    (copy / "class1" / "001.JPEG").unlink()
    object.__setattr__(source, "fingerprint", lambda: fingerprint)
    with pytest.raises(ValueError, match=r"class1/001\.JPEG cannot be read .* was there when"):
        packing.pack(source, tmp_path / "set", samples_per_shard=7)
