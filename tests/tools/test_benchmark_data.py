"""The sections of tools/benchmark_data.py run and publish whole tables; what they rely on."""

import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("skimage", reason="pictures come from the extra 'photos'")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def section():
    spec = importlib.util.spec_from_file_location(
        "benchmark_data", ROOT / "tools/benchmark_data.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reading_compares_shards_with_their_folder(section, tmp_path):
    table = section.reading_table(tmp_path, 4, 1)
    assert table.id == "data.reading"
    first, *others = table.figures
    assert (first.what, first.values["ratio"]) == ("image folder", 1.0)
    assert len(others) == 4
    assert all(f.claims and f.values["rate"] > 0 for f in others)


def test_decoding_lists_every_way(section, tmp_path):
    table = section.decoding_table(tmp_path, 2, 1)
    assert table.id == "data.decoding"
    for f in table.figures:
        cores = f.values["cores"]  # as few whole ones as keep up
        assert f.values["rate"] * (cores - 1) < section.VIT_S_IMAGES_PER_S
        assert f.values["rate"] * cores >= section.VIT_S_IMAGES_PER_S


def test_all_decoders_give_the_same_pixels(section, tmp_path):
    for path in section.make_pictures(tmp_path, 3):
        data = path.read_bytes()
        image = section.decode_rgb(data)
        assert image.shape == (3, 375, 500)
        assert torch.equal(image, section._torchvision(data))
        assert torch.equal(image, section._opencv(data))
