"""Data: what is on disk or in a package, readers, keyed loading, LightningDataModules."""

from visionlab.registry import Registry, lazy_exports

DATA = Registry(
    "data",
    {
        "images": "visionlab.data.images:ImageData",
        "paths": "visionlab.data.files:PathData",
        "task_mixture": "visionlab.data.mixture:TaskMixture",
        "laplacian": "visionlab.data.laplacian:LaplacianData",
    },
)

DATASETS = Registry(
    "dataset",
    {
        "fashion_mnist": "visionlab.data.fashion_mnist:fashion_mnist",
        "array_images": "visionlab.data.arrays:array_images",
        "image_folder": "visionlab.data.image_folder:ImageFolder",
        "image_shards": "visionlab.data.shards.datasets:ImageShards",
        "mnist_digits": "visionlab.data.digits:mnist_digits",
        "photograph_crops": "visionlab.data.photographs:PhotographCrops",
        "volume_slices": "visionlab.data.volumes:VolumeSlices",
        "task_data": "visionlab.data.mixture:TaskData",
        "composed_items": "visionlab.data.composed:ComposedItems",
        "packed_archive": "visionlab.data.archives:PackedArchive",
        "packed_images": "visionlab.data.archives:packed_images",
        "coco_detection": "visionlab.data.annotations:CocoDetection",
        "coco_shards": "visionlab.data.shards.datasets:CocoShards",
        "voc_detection": "visionlab.data.annotations:VocDetection",
        "yolo_detection": "visionlab.data.annotations:YoloDetection",
        "segmentation_folder": "visionlab.data.segmentation:SegmentationFolder",
    },
)

TRANSFORMS = Registry(
    "transform",
    {
        "pretraining": "visionlab.data.transforms:pretraining",
        "finetuning": "visionlab.data.transforms:finetuning",
        "evaluation": "visionlab.data.transforms:evaluation",
        "jitter_crop": "visionlab.data.labelled_transforms:jitter_crop",
        "fit_inside": "visionlab.data.labelled_transforms:fit_inside",
        "shorter_side": "visionlab.data.labelled_transforms:shorter_side",
    },
)

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ImageData": "images",
        "ImageFolder": "image_folder",
        "ImageShards": "shards.datasets",
        "CocoShards": "shards.datasets",
        "LaplacianData": "laplacian",
        "PhotographCrops": "photographs",
        "VolumeSlices": "volumes",
        "mnist_digits": "digits",
        "ArrayImages": "arrays",
        "KeyedLoader": "loading",
        "TaskMixture": "mixture",
        "TaskData": "mixture",
        "ComposedItems": "composed",
        "PackedArchive": "archives",
        "CocoDetection": "annotations",
        "VocDetection": "annotations",
        "YoloDetection": "annotations",
        "SegmentationFolder": "segmentation",
        "keyed_randomness": "randomness",
        "mix": "randomness",
    }
    | {
        m: m for m in ("arrays", "fashion_mnist", "image_folder", "images", "loading", "transforms")
    },
)
