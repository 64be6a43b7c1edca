"""Masks by name."""

import pytest

from visionlab.masking import MASKS, ColorMask, Mask, create_mask, list_masks
from visionlab.masking.random import RandomMask


def test_lists_by_pattern():
    assert list_masks("gr*") == ["green", "grid"]
    assert {"red", "blue", "green", "purple", "white", "blend", "mix"} <= set(list_masks())


def test_passes_options_on():
    mask = create_mask("red", (4, 6), 0.5, sigma=2.0, boundary="torus")
    assert isinstance(mask, ColorMask)
    assert mask.spectrum.sigma == 2.0
    assert (mask.grid, mask.ratio, mask.boundary) == ((4, 6), 0.5, "torus")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gren", {}, "no mask 'gren'. Did you mean 'green'"),
        ("green", {"f00": 0.1}, "mask 'green' has no option 'f00'. Did you mean 'f0'"),
        ("random", {"sigma": 1}, "mask 'random' has no option 'sigma'"),
        ("dog", {"sigma_weak": 1.0}, "mask 'dog' needs 'sigma_strong'"),
        ("mix", {"colors": {"gren": 1.0}}, "no colour 'gren'. Did you mean 'green'"),
        ("mix", {"colors": {"green": -1.0}}, "weights of a mix are >= 0"),
        ("blend", {"colors": {}}, "weights of a blend are >= 0"),
    ],
)
def test_refusals_are_sentences(name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        create_mask(name, (14, 14), **options)


def test_own_strategies_register():
    name = "test_create_own"

    @MASKS.register(name)
    class Own(RandomMask):
        pass

    @MASKS.register(f"{name}_wrong")
    def wrong(grid=None, *, ratio=0.75):
        return 3

    try:
        assert isinstance(create_mask(name, (2, 2), 0.5), Mask)
        with pytest.raises(TypeError, match="built a int, which is no Mask"):
            create_mask(f"{name}_wrong", (2, 2))
    finally:
        del MASKS._entries[name], MASKS._entries[f"{name}_wrong"]
