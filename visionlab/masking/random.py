"""MAE's masks: every patch is equally likely to stay visible (He et al., CVPR 2022)."""

from torch import Tensor

from visionlab.masking.base import Mask
from visionlab.masking.keys import Draws


class RandomMask(Mask):
    """Visible patches drawn uniformly without replacement."""

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        height, width = self.bound_grid
        return draws.uniform(height * width)
