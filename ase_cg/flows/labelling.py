"""Labels of frames by a flow: positions drawn from the kernel, and kT times its score there."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.flows.base import ConditionalFlow
from ase_cg.keys import MAX_FORCE
from ase_cg.labels.frame_noise import FrameNoise

FAR = 20.0  # times all noise together: a sample that far from its conditioning has left the data


class Labelled(NamedTuple):
    """Labels of a batch.

    Attributes
    ----------
    kept : ndarray of bool, shape (B,)
        Frames whose integration succeeded; only of those are there rows below.
    coordinates : ndarray, shape (K, N, 3)
        y ~ k(· | x + σ_n ε) in Å, mean-free.
    forces : ndarray, shape (K, N, 3)
        kT ∇ ln k(y | x + σ_n ε) in eV/Å.
    log_prob : ndarray, shape (K,)
        ln k, per Å to the power of 3N − 3.
    """

    kept: NDArray[np.bool_]
    coordinates: NDArray[np.float32]
    forces: NDArray[np.float32]
    log_prob: NDArray[np.float64]


def label_batch(
    flow: ConditionalFlow, types: Tensor, x: Tensor, key: Sequence[int], numbers: Tensor, *, kT: float
) -> Labelled:
    """Label frames; those whose likelihood or label is no number, or that flew away, are dropped.

    Parameters
    ----------
    flow : ConditionalFlow
    types : Tensor of int64, shape (N,)
    x : Tensor, shape (B, N, 3)
        In Å.
    key : sequence of int
        Of the noise; a frame's label depends on it and its number only.
    numbers : Tensor of int64, shape (B,)
        Of the frames.
    kT : float
        In eV.
    """
    noise = FrameNoise(key, numbers)
    z = flow.add_noise(x, noise.normal)
    try:
        found = flow.sample(z, types, noise.normal)
    except ArithmeticError:
        # An adaptive solver gives up on all frames where one of them is stiff.
        if len(x) == 1:
            return Labelled(np.zeros(1, dtype=bool), *(np.zeros((0, *x.shape[1:]), np.float32),) * 2, np.zeros(0))
        rows = [slice(row, row + 1) for row in range(len(x))]
        single = [label_batch(flow, types, x[row], key, numbers[row], kT=kT) for row in rows]
        return Labelled(*(np.concatenate(parts) for parts in zip(*single, strict=True)))
    forces = kT * found.score
    reach = FAR * math.hypot(flow.noise_std, flow.prior_std)
    good = torch.isfinite(found.log_prob) & torch.isfinite(forces).all(2).all(1)
    good &= ((found.x - z).abs().amax((1, 2)) < reach) & (forces.abs().amax((1, 2)) < MAX_FORCE)
    kept = good.cpu().numpy()
    return Labelled(
        kept=kept,
        coordinates=found.x.float().cpu().numpy()[kept],
        forces=forces.float().cpu().numpy()[kept],
        log_prob=found.log_prob.double().cpu().numpy()[kept],
    )
