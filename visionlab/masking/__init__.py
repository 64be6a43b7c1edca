"""ColorMAE (Hinojosa et al., ECCV 2024): masks from coloured noise, and masked autoencoders.

Reading order: ``spectrum`` (a colour is a spectrum) -> ``noise`` (a keyed field with it) ->
``colors`` and the other strategies (which patches stay visible) -> ``schedule`` ->
``autoencoder``. Nothing heavy is imported before a name is used.

Example:
    >>> import visionlab.masking as masking
    >>> mask = masking.create_mask("green", grid=(14, 14), ratio=0.75)
    >>> mask(8, key=(0, 0, 0)).ids_keep.shape
    torch.Size([8, 49])
"""

from visionlab.registry import Registry, lazy_exports

_HERE = "visionlab.masking"

MASKS = Registry(
    "mask",
    {
        "random": f"{_HERE}.random:RandomMask",
        "white": f"{_HERE}.colors:white",
        "red": f"{_HERE}.colors:red",
        "blue": f"{_HERE}.colors:blue",
        "green": f"{_HERE}.colors:green",
        "purple": f"{_HERE}.colors:purple",
        "dog": f"{_HERE}.colors:dog",
        "profile": f"{_HERE}.colors:profile",
        "color": f"{_HERE}.colors:ColorMask",
        "blend": f"{_HERE}.colors:blend",
        "mix": f"{_HERE}.colors:MixMask",
        "bank": f"{_HERE}.bank:BankMask",
        "block": f"{_HERE}.blocks:BlockMask",
        "inverse_block": f"{_HERE}.blocks:InverseBlockMask",
        "grid": f"{_HERE}.grids:GridMask",
        "unit": f"{_HERE}.grids:UnitMask",
        "multiblock": f"{_HERE}.multiblock:MultiBlockMask",
        "score": f"{_HERE}.score:ScoreMask",
        "schedule": f"{_HERE}.schedule:ScheduledMask",
    },
)

DECODERS = Registry(
    "decoder",
    {
        "standard": f"{_HERE}.decoders:StandardDecoder",
        "light": f"{_HERE}.decoders:LightDecoder",
        "cross_attention": f"{_HERE}.decoders:CrossAttentionDecoder",
    },
)

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "create_mask": "create",
        "list_masks": "create",
        "as_spectrum": "spectrum",
        "Mask": "base",
        "MaskBatch": "mask_batch",
        "RandomMask": "random",
        "ColorMask": "colors",
        "MixMask": "colors",
        "BankMask": "bank",
        "BlockMask": "blocks",
        "InverseBlockMask": "blocks",
        "GridMask": "grids",
        "UnitMask": "grids",
        "MultiBlockMask": "multiblock",
        "ScoreMask": "score",
        "ScheduledMask": "schedule",
        "MaskStatistics": "statistics",
        "mask_statistics": "statistics",
        "MaskedAutoencoder": "autoencoder",
        "Reconstruction": "reconstruction",
        "load_official_encoder": "official_weights",
        "load_official_autoencoder": "official_weights",
        "spectrum": "spectrum",
        "statistics": "statistics",
    },
)
