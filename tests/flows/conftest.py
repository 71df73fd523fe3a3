"""The published flow of chignolin, and small fields."""

import numpy as np
import pytest
import torch

from ase_cg.flows.egnn import EGNN
from ase_cg.flows.published import read_published_egnn


@pytest.fixture(scope="session")
def operator_forces(shared):
    folder = shared / "operator_forces"
    if not folder.is_dir():
        pytest.skip("the published flow of ../shared/data/operator_forces is not here")
    return folder


@pytest.fixture(scope="session")
def published(operator_forces) -> EGNN:
    return read_published_egnn(operator_forces / "cln_cnf_weights.npz")


@pytest.fixture(scope="session")
def reference(operator_forces) -> dict[str, torch.Tensor]:
    """Values computed with the published weights; positions as (4, 10, 3)."""
    with np.load(operator_forces / "cln_cnf_reference.npz") as archive:
        arrays = {key: torch.from_numpy(archive[key]) for key in archive.files}
    return {
        key: array.reshape(*array.shape[:-1], 10, 3) if array.shape[-1:] == (30,) else array
        for key, array in arrays.items()
    }


@pytest.fixture
def small_field() -> EGNN:
    """Three layers with random weights, large enough for the field to bend, in double precision."""
    torch.manual_seed(0)
    field = EGNN(4, features=8, n_layers=3, reach=3.0).double()
    for layer in field.layers:
        torch.nn.init.normal_(layer.coordinate[2].weight, std=0.5)
    return field.requires_grad_(requires_grad=False)


@pytest.fixture
def frames() -> torch.Tensor:
    """Three conformations of five beads, (3, 5, 3) in Å, mean-free."""
    x = 1.5 * torch.randn(3, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x - x.mean(1, keepdim=True)
