"""LightningModules, one job each, and what runs them: optimisers, training, evaluations."""

from visionlab.registry import Registry, lazy_exports

TASKS = Registry(
    "task",
    {
        "masked_pretraining": "visionlab.tasks.masked_pretraining:MaskedPretraining",
        "linear_probing": "visionlab.tasks.probing:LinearProbing",
        "finetuning": "visionlab.tasks.finetuning:Finetuning",
        "rotation": "visionlab.tasks.rotation:Rotation",
        "multitask": "visionlab.tasks.multitask:MultiTaskTraining",
        "proximal_matching": "visionlab.tasks.proximal_matching:ProximalMatching",
    },
)

OPTIMIZERS = Registry(
    "optimizer",
    {
        "adamw": "visionlab.tasks.optimizers:AdamW",
        "adam": "visionlab.tasks.optimizers:Adam",
        "sgd": "visionlab.tasks.optimizers:SGD",
        "lars": "visionlab.tasks.optimizers:Lars",
    },
)

EVALUATIONS = Registry(
    "evaluation",
    {
        "task_table": "visionlab.tasks.multitask_evaluation:TaskTable",
        "scores": "visionlab.tasks.scores:Scores",
        "frozen_features": "visionlab.tasks.frozen_features:FrozenFeatures",
        "rotation_errors": "visionlab.tasks.rotation:RotationErrors",
        "mask_pictures": "visionlab.tasks.pictures:MaskPictures",
        "learned_prior": "visionlab.tasks.learned_prior:LearnedPrior",
        "denoising_curve": "visionlab.tasks.denoising_curve:DenoisingCurve",
    },
)

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Task": "base",
        "MaskedPretraining": "masked_pretraining",
        "LinearProbing": "probing",
        "Finetuning": "finetuning",
        "MultiTaskTraining": "multitask",
        "ProximalMatching": "proximal_matching",
    }
    | {m: m for m in ("base", "optimizers", "training", "curves")},
)
