"""Residual log-likelihood estimation: a normalizing flow and the keypoint loss that trains it (section 3.4).

After Li et al., Human Pose Regression with Residual Log-likelihood Estimation (ICCV 2021). One flow serves all
keypoints and stages.
Axes: P matched pairs, K keypoints.
"""

import math

import torch
from torch import Tensor, nn

from dynpose.utils.exporting import without_autocast

# Sigmas are clamped to this: the largest error divided by it, and its square, stay finite in float32
_MIN_SIGMA = 1e-6


class RealNVP(nn.Module):
    """A flow between the plane and a standard normal distribution on it (Dinh et al., ICLR 2017).

    Each affine coupling keeps one coordinate, and two small networks of it give the shift and scale of the other. The
    kept coordinate alternates. The parameter names are those of the release.

    Args:
        num_couplings (int): number of couplings.
        hidden_dim (int): units of the networks' two hidden layers.
    """

    mask: Tensor

    def __init__(self, num_couplings: int = 6, hidden_dim: int = 64):
        super().__init__()
        # the kept coordinate of each coupling
        self.register_buffer("mask", torch.eye(2).flip(0).repeat(math.ceil(num_couplings / 2), 1)[:num_couplings])
        self.t = nn.ModuleList(_network(hidden_dim) for _ in range(num_couplings))
        self.s = nn.ModuleList(_network(hidden_dim, nn.Tanh()) for _ in range(num_couplings))

    def forward(self, z: Tensor) -> Tensor:
        """Map normally distributed points to those of the learned distribution: (..., 2) -> (..., 2)."""
        for keep, shift, scale in zip(self.mask, self.t, self.s):
            kept = z * keep
            z = kept + (1 - keep) * (z * scale(kept).exp() + shift(kept))
        return z

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map points of the learned distribution to normally distributed ones.

        Args:
            x (Tensor): (..., 2).

        Returns:
            tuple[Tensor, Tensor]: z (..., 2), and the logarithm of the determinant of dz / dx, (...).
        """
        log_det = x.new_zeros(x.shape[:-1])
        for keep, shift, scale in reversed(list(zip(self.mask, self.t, self.s))):
            kept = x * keep
            log_scale = scale(kept) * (1 - keep)
            x = kept + (1 - keep) * (x - shift(kept)) * (-log_scale).exp()
            log_det = log_det - log_scale.sum(dim=-1)
        return x, log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of the learned distribution: (..., 2) -> (...), in the parameters' precision under autocast."""
        with without_autocast(x.device):
            z, log_det = self.inverse(x.to(self.mask.dtype))
            return log_det - 0.5 * z.square().sum(dim=-1) - math.log(2 * math.pi)


def _network(hidden_dim, *last):
    return nn.Sequential(
        nn.Linear(2, hidden_dim),
        nn.LeakyReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.LeakyReLU(),
        nn.Linear(hidden_dim, 2),
        *last,
    )


def residual_log_likelihood(
    flow: RealNVP, keypoints: Tensor, sigmas: Tensor, targets: Tensor, learnt: Tensor
) -> Tensor:
    """Negative log-likelihood of the annotated keypoints, per coordinate (Eq. 4).

    The density is that of a Laplace distribution around the prediction, times that of the flow, which learns the
    residual. As in the release, the flow's joint log-density of the two coordinates counts for each of them, and so
    twice in the sum, and the constant of the Laplace part is that of a normal distribution.

    Args:
        flow (RealNVP): flow of the error in units of sigma.
        keypoints (Tensor): (P, K, 2) predictions mu, relative to the box.
        sigmas (Tensor): (P, K, 2) in (0, 1), in the same unit; clamped to at least 1e-6.
        targets (Tensor): (P, K, 2), relative to the box.
        learnt (Tensor): (P, K) bool, keypoints that have a loss.

    Returns:
        Tensor: (P, K, 2), to be summed; exactly 0 and without gradient where not ``learnt``, for any other values.
        Computed in the flow's precision under autocast.
    """
    learnt = learnt[..., None]
    with without_autocast(keypoints.device):
        keypoints, sigmas, targets = (value.to(flow.mask.dtype) for value in (keypoints, sigmas, targets))
        # mask before any computation: a gradient of 0 times infinity would be NaN
        errors = torch.where(learnt, keypoints - targets, 0.0)
        sigmas = torch.where(learnt, sigmas, 1.0).clamp(min=_MIN_SIGMA)
        flow_part = sigmas.log() - flow.log_prob(errors / sigmas)[..., None]
        laplace_part = (sigmas * math.sqrt(2 * math.pi)).log() + errors.abs() / (math.sqrt(2) * sigmas + 1e-9)
        return torch.where(learnt, flow_part + laplace_part, 0.0)
