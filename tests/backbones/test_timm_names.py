"""Names read from timm's source are the names that timm registers."""

from visionlab.backbones.timm_names import timm_names


def test_static_names_are_timms_own():
    import timm

    architectures = {n.partition(".")[0] for n in timm.list_models()}
    assert architectures <= timm_names()
