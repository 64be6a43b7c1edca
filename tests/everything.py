"""What a run may import, loaded once in the process that all runs are forked from."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import omegaconf  # noqa: F401
import timm.optim  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
import torchmetrics.detection  # noqa: F401
import torchvision.transforms.v2  # noqa: F401
import train  # noqa: F401

import visionlab.backbones.vit
import visionlab.data.image_folder
import visionlab.data.laplacian
import visionlab.data.mixture
import visionlab.data.shards.datasets
import visionlab.heads.multitask
import visionlab.masking.decoders
import visionlab.rotation.voting_numba
import visionlab.tasks.masked_pretraining
import visionlab.tasks.multitask
import visionlab.tasks.probing
import visionlab.tasks.proximal_matching
import visionlab.tasks.rotation
import visionlab.tasks.training  # noqa: F401
from tests.faults import child  # noqa: F401
