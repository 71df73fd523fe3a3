"""Published flow networks as our fields: arrays read, nothing executed."""

import os
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file
from ase_cg.flows.egnn import EGNN

PUBLISHED_REACH = 15.0  # Å, in all layers together
RENAMED = {"edge_mlp": "edge", "att_mlp.0": "gate", "coord_mlp": "coordinate", "node_mlp": "node"}


def read_published_egnn(path: str | os.PathLike[str]) -> EGNN:
    """Make the field of an EGNN in the naming of the original publication, from an archive of NumPy arrays.

    Each bead of the molecule is a type of its own. Weights that the field does not depend on (`embedding_out`, the
    node network of the last layer) are left out.

    Parameters
    ----------
    path : path
        Of an ``.npz`` with `embedding.weight`, `gcl_0.edge_mlp.0.weight` and so on; nothing is unpickled.

    Returns
    -------
    EGNN
        In double precision; its parameters want no gradient.

    Raises
    ------
    InputError
        If the file cannot be read, or weights are missing or of another shape.
    """
    found = existing_file(path, "weights")
    try:
        with np.load(found, allow_pickle=False) as archive:
            arrays = {key: torch.from_numpy(archive[key]).double() for key in archive.files}
    except Exception as error:
        # A damaged archive raises whatever its reader meets first.
        raise InputError(f"{found} is no archive of arrays or is damaged: {reason(error)}") from error
    try:
        features, columns = arrays["embedding.weight"].shape
        field = EGNN(columns - 1, features=features, n_layers=_n_layers(arrays), reach=PUBLISHED_REACH).double()
        field.load_state_dict(_renamed(arrays, field.n_layers))
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{found} does not hold the weights of a published EGNN: {reason(error)}") from error
    return field.requires_grad_(requires_grad=False)


def _n_layers(arrays: Mapping[str, Tensor]) -> int:
    numbers = [int(match[1]) for key in arrays if (match := re.match(r"gcl_(\d+)\.", key))]
    return max(numbers, default=-1) + 1


def _renamed(arrays: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    renamed = {}
    for key, array in arrays.items():
        if key.startswith(("embedding_out.", f"gcl_{n_layers - 1}.node_mlp.")):
            continue
        name = re.sub(r"^gcl_(\d+)\.", r"layers.\1.", key)
        for theirs, ours in RENAMED.items():
            name = name.replace(f".{theirs}.", f".{ours}.")
        renamed[name] = array
    return renamed
