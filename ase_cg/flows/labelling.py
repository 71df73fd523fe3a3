"""Labels of frames by a flow: positions drawn from the kernel, and kT times its score there."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.flows.base import ConditionalFlow, Scored
from ase_cg.flows.orientation import without_torque
from ase_cg.keys import MAX_FORCE
from ase_cg.labels.frame_noise import FrameNoise

FAR = 20.0  # times all noise together: a sample that far from its conditioning has left the data
MISSED = 0.1  # times that: the way back from a frame and forth again has not led to it


class Labelled(NamedTuple):
    """Labels of a batch.

    Attributes
    ----------
    kept : ndarray of bool, shape (B,)
        Frames whose integration succeeded; only of those are there rows below.
    coordinates : ndarray, shape (K, N, 3)
        y ~ k(· | z) in Å, mean-free; or the frames themselves, turned.
    forces : ndarray, shape (K, N, 3)
        kT ∇ ln k(y | z) in eV/Å, z being x + σ_n ε, or an earlier frame.
    log_prob : ndarray, shape (K,)
        ln k, per Å to the power of 3N − 3.
    """

    kept: NDArray[np.bool_]
    coordinates: NDArray[np.float32]
    forces: NDArray[np.float32]
    log_prob: NDArray[np.float64]


def label_batch(
    flow: ConditionalFlow,
    types: Tensor,
    x: Tensor,
    key: Sequence[int],
    numbers: Tensor,
    *,
    kT: float,
    earlier: Tensor | None = None,
    at_frames: bool = False,
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
    earlier : Tensor, shape (B, N, 3), optional
        Of a flow of transitions: z, where the molecule was one lag before, in Å. Labels then have no torque.
    at_frames : bool
        Of a flow of transitions: score x itself instead of a sample.
    """
    noise = FrameNoise(key, numbers)
    try:
        found, there = _found(flow, types, x, earlier, noise, at_frames=at_frames)
    except ArithmeticError:
        # An adaptive solver gives up on all frames where one of them is stiff.
        if len(x) == 1:
            return Labelled(np.zeros(1, dtype=bool), *(np.zeros((0, *x.shape[1:]), np.float32),) * 2, np.zeros(0))
        rows = [slice(row, row + 1) for row in range(len(x))]
        label = partial(label_batch, flow, types, kT=kT, at_frames=at_frames)
        single = [label(x[r], key, numbers[r], earlier=None if earlier is None else earlier[r]) for r in rows]
        return Labelled(*(np.concatenate(parts) for parts in zip(*single, strict=True)))
    forces = kT * (found.score if earlier is None else without_torque(found.score, found.x))
    good = torch.isfinite(found.log_prob) & torch.isfinite(forces).all(2).all(1) & there
    good &= forces.abs().amax((1, 2)) < MAX_FORCE
    kept = good.cpu().numpy()
    return Labelled(
        kept=kept,
        coordinates=found.x.float().cpu().numpy()[kept],
        forces=forces.float().cpu().numpy()[kept],
        log_prob=found.log_prob.double().cpu().numpy()[kept],
    )


def _found(
    flow: ConditionalFlow, types: Tensor, x: Tensor, earlier: Tensor | None, noise: FrameNoise, *, at_frames: bool
) -> tuple[Scored, Tensor]:
    """Return positions with their scores, and whether each is where it belongs."""
    if earlier is None:
        z = flow.add_noise(x, noise.normal)
    else:
        x, z = flow.pair(x, earlier, noise.normal)
    if at_frames:
        found, goal, reach = flow.score(x, z, types, noise.normal), x, MISSED * flow.width
    else:
        found, goal, reach = flow.sample(z, types, noise.normal), z, FAR * flow.width
    return found, (found.x - goal).abs().amax((1, 2)) < reach
