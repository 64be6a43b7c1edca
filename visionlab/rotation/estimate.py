"""What an estimator returns."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation import so3

Array = NDArray[np.float64]


class Status(StrEnum):
    """Verdict on one estimate."""

    OK = "ok"
    AMBIGUOUS = "ambiguous"
    """A second, distant rotation explains nearly as many vectors; it is in ``second``."""
    OUT_OF_RANGE = "out_of_range"
    """No rotation within the widest range gathers votes; the answer is not to be trusted."""
    LOW_TEXTURE = "low_texture"
    """Too few usable vectors; the answer is the prior or the identity."""
    DEGENERATE = "degenerate"
    """All-zero flow (duplicate frames): the exact identity. Or the vectors fix no rotation."""


@dataclass(frozen=True, eq=False)
class RotationEstimate:
    """Camera rotation between two frames, with its verdict.

    Example:
        >>> RotationEstimate(rotvec=np.zeros(3)).quaternion.tolist()
        [0.0, 0.0, 0.0, 1.0]
    """

    rotvec: Array
    """(3,) rad: ``log(R_wc_i^-1 R_wc_{i+1})``, camera axes x right, y down, z forward."""
    status: Status = Status.OK
    message: str = ""
    """One sentence where the status is not ``ok`` or the range was widened."""
    votes: int = 0
    """Votes of the winning cell (sum of integer weights)."""
    peak_share: float = 0.0
    """``votes`` over the votes cast: the share of lines through the winning cell."""
    inlier_ratio: float = 0.0
    """Weighted share of the refinement's vectors within 3 sigma of the answer."""
    covariance: Array | None = None
    """(3, 3) rad^2 of the rotation vector, from residuals taken as independent."""
    sigma: float = 0.0
    """Residual scale in px, per component."""
    inliers: NDArray[np.bool_] | None = None
    """Which of ``points`` agree with the answer."""
    points: Array | None = None
    """(N, 2) px: the vectors' positions in frame i, in the order of ``inliers`` and ``static``."""
    second: Array | None = None
    """(3,) rad: the best distant rotation, where one was looked for."""
    second_inlier_ratio: float = 0.0
    max_angle: float = 0.0
    """Range that was searched, rad per axis; larger than asked where it was widened."""
    joint: bool = False
    """Whether rotation and heading were refined together (the gate accepted parallax)."""
    gate: tuple[float, float] | None = None
    """Gain in mean log-likelihood of the joint model, over all and over regions (`joint`)."""
    heading: Array | None = None
    """(3,) unit direction of the camera's motion, axes of frame i+1, if parallax was accepted."""
    parallax: float = 0.0
    """Mean parallax of the near points in px; 0 where rotation alone explains the flow."""
    static: Array | None = None
    """Probability that each of ``points`` is static rather than a mover or an outlier."""

    @property
    def ok(self) -> bool:
        """Whether the status is ``ok``."""
        return self.status is Status.OK

    @property
    def matrix(self) -> Array:
        """(3, 3) rotation matrix ``R_wc_i^-1 R_wc_{i+1}``."""
        return so3.exp(self.rotvec)

    @property
    def quaternion(self) -> Array:
        """(4,) unit quaternion x, y, z, w."""
        return so3.quaternion_from_rotvec(self.rotvec)

    @property
    def angle(self) -> float:
        """Rotation angle in rad."""
        return float(np.linalg.norm(self.rotvec))

    def to(self, convention: str) -> Array:
        """(3,) rotation vector as ``points``, ``opengl`` or ``buss`` write it (`so3.convert`)."""
        return so3.convert(self.rotvec, convention)

    def inverse(self) -> Self:
        """The rotation from frame i+1 back to frame i; what refers to positions is dropped."""
        # log(R^-1) = -log(R): the covariance is carried over by the rotation itself
        turn = self.matrix
        covariance = None if self.covariance is None else turn @ self.covariance @ turn.T
        heading = None if self.heading is None else -(turn @ self.heading)
        return type(self)(
            rotvec=-self.rotvec,
            status=self.status,
            message=self.message,
            votes=self.votes,
            peak_share=self.peak_share,
            inlier_ratio=self.inlier_ratio,
            covariance=covariance,
            sigma=self.sigma,
            second=None if self.second is None else -self.second,
            second_inlier_ratio=self.second_inlier_ratio,
            max_angle=self.max_angle,
            joint=self.joint,
            gate=self.gate,
            heading=heading,
            parallax=self.parallax,
        )
