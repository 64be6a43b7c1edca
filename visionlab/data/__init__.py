"""Data: what is on disk or in a package, readers, keyed loading, LightningDataModules."""

from visionlab.registry import Registry, lazy_exports

DATA = Registry(
    "data",
    {
        "images": "visionlab.data.images:ImageData",
    },
)

DATASETS = Registry(
    "dataset",
    {
        "fashion_mnist": "visionlab.data.fashion_mnist:fashion_mnist",
        "array_images": "visionlab.data.arrays:array_images",
        "image_folder": "visionlab.data.image_folder:ImageFolder",
    },
)

TRANSFORMS = Registry(
    "transform",
    {
        "pretraining": "visionlab.data.transforms:pretraining",
        "finetuning": "visionlab.data.transforms:finetuning",
        "evaluation": "visionlab.data.transforms:evaluation",
    },
)

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ImageData": "images",
        "ImageFolder": "image_folder",
        "ArrayImages": "arrays",
        "KeyedLoader": "loading",
        "keyed_randomness": "randomness",
        "mix": "randomness",
    }
    | {
        m: m for m in ("arrays", "fashion_mnist", "image_folder", "images", "loading", "transforms")
    },
)
