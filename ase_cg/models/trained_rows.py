"""Which rows of a network's embedding were trained: the others are the random numbers they began as."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# A row that was never trained has a norm outside the expected range with this probability, at each end.
TAIL = 5e-4
MANY = 20  # unused rows whose median norm is worth knowing


@dataclass(frozen=True)
class TrainedRows:
    """What is known of the rows of an embedding.

    Parameters
    ----------
    trained : tuple of bool
        By row; false where a row cannot be told from random numbers.
    norms : tuple of float
        By row.
    expected : tuple of float
        Least and greatest norm of rows that were never trained.
    is_certain : bool
        Whether the optimiser's state says so, or the norms alone.
    """

    trained: tuple[bool, ...]
    norms: tuple[float, ...]
    expected: tuple[float, float]
    is_certain: bool

    def __len__(self) -> int:
        return len(self.trained)

    def reason(self, row: int) -> str:
        """Return why a row counts as never trained."""
        if self.is_certain:
            return "the training never changed it: no molecule of the training data had it"
        return (
            f"its norm {self.norms[row]:.1f} is that of random numbers ({self.expected[0]:.1f} to "
            f"{self.expected[1]:.1f}), and the checkpoint does not tell more"
        )


def trained_rows(embedding: Tensor, unused: Iterable[int], moments: Tensor | None, *, continued: bool) -> TrainedRows:
    """Tell rows of an embedding that were trained from those that still hold the random numbers they began as.

    Where the checkpoint has the state of Adam, this is exact: the mean squared gradient of a row that no molecule of
    the data had is zero. The norm is not: of the published multi-protein network, the rows of TRP, PRO, HIS, MET and
    NLE were trained and have norms of 10.5 to 12.9, like rows that were not. Without that state the norm has to do. A
    row of d standard normal numbers, as PyTorch begins an embedding, has a squared norm that is χ² distributed with d
    degrees of freedom; a row counts as trained only outside the central 99.9 % of that distribution. This errs on the
    safe side: a row that training hardly moved counts as untrained. Weight decay shrinks all rows alike, so norms are
    compared in units of the median of rows that no residue has, where there are many.

    Parameters
    ----------
    embedding : Tensor, shape (rows, d)
    unused : iterable of int
        Rows that no residue has.
    moments : Tensor of shape (rows, d), optional
        Adam's mean squared gradients of the embedding.
    continued : bool
        Whether the training began with the weights of another one, of which the moments know nothing: then a row whose
        norm shows it counts as trained too.
    """
    from scipy.stats import chi2

    norms = embedding.double().norm(dim=1)
    size = embedding.shape[1]
    background = norms[list(unused)]
    scale = float(background.median()) / chi2.median(size) ** 0.5 if len(background) >= MANY else 1.0
    low, high = (scale * float(chi2.ppf(tail, size)) ** 0.5 for tail in (TAIL, 1 - TAIL))
    moved = (norms < low) | (norms > high)
    has_state = moments is not None and moments.shape == embedding.shape
    if moments is not None and has_state:
        seen = (moments != 0).any(dim=1)
        moved = seen | moved if continued else seen
    return TrainedRows(tuple(moved.tolist()), tuple(norms.tolist()), (low, high), has_state and not continued)


def squared_gradients(checkpoint: Mapping[str, Any], shape: torch.Size) -> Tensor | None:
    """Return Adam's mean squared gradients of a network's first parameter, its embedding, or None if there are none.

    Parameters
    ----------
    checkpoint : mapping
        Of PyTorch Lightning.
    shape : torch.Size
        Of the embedding.
    """
    try:
        state = checkpoint["optimizer_states"][0]
        group = state["param_groups"][0]
        found = state["state"][group["params"][0]]["exp_avg_sq"]
        decay = float(group.get("weight_decay", 0.0))
    except (IndexError, KeyError, TypeError, ValueError):
        return None  # saved without, or by another optimiser
    if not isinstance(found, Tensor) or found.shape != shape or not bool(torch.isfinite(found).all()):
        return None
    # Adam's own weight decay is part of the gradient of every row, used or not.
    says_nothing = decay > 0 and bool((found != 0).any(dim=1).all())
    return None if says_nothing or not bool(found.any()) else found
