"""Heads: from a plain ViT's one feature map to classes, boxes, instance masks, segmentations."""

from visionlab.registry import Registry, lazy_exports

HEADS = Registry(
    "head",
    {
        "linear_classification": "visionlab.heads.classification:LinearClassificationHead",
        "fcos": "visionlab.heads.detection:FCOSDetectionHead",
        "faster_rcnn": "visionlab.heads.faster_rcnn:FasterRCNNHead",
        "linear_segmentation": "visionlab.heads.segmentation:LinearSegmentationHead",
        "uper_segmentation": "visionlab.heads.segmentation:UPerSegmentationHead",
    },
)

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Features": "features",
        "LossSum": "features",
        "LinearClassificationHead": "classification",
        "SimpleFeaturePyramid": "pyramid",
        "FCOSDetectionHead": "detection",
        "FasterRCNNHead": "faster_rcnn",
        "LinearSegmentationHead": "segmentation",
        "UPerSegmentationHead": "segmentation",
        "average_precision_50": "average_precision",
        "MultiTaskModel": "multitask",
        "ImageClassifier": "classifier",
    },
)
