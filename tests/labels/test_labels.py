"""Labels: their closed forms, their conditional mean on known ground, and published variances."""

import numpy as np
import pytest
import torch

from ase_cg.errors import InputError
from ase_cg.labels import label_source
from ase_cg.labels.forces_and_noise import ForcesAndNoise
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.units import KCAL_PER_MOL, thermal_energy

KT = thermal_energy(300.0)


def _noise(frames: int, seed: int = 0) -> FrameNoise:
    return FrameNoise((seed,), torch.arange(frames))


def _correlated_forces(frames: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((4, 4))
    return torch.from_numpy(np.einsum("ij,fjx->fix", mixing, rng.standard_normal((frames, 4, 3))))


def test_atomistic_labels_are_the_frames():
    x, forces = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    y, f = label_source("atomistic").fit(forces, kT=KT, noise_std=None)(x, forces, _noise(len(x)))
    assert torch.equal(x, y)
    assert torch.equal(forces, f)


def test_noise_labels_pull_back_along_the_noise():
    x = torch.zeros(2000, 4, 3).double()
    y, f = label_source("noise").fit(None, kT=KT, noise_std=0.05)(x, None, _noise(len(x)))
    assert f.numpy() == pytest.approx((-KT / 0.05**2 * y).numpy())
    assert y.std().item() == pytest.approx(0.05, rel=0.02)


def test_alpha_is_the_minimum_of_the_variance_over_all_maps():
    forces = _correlated_forces(4000)
    source = ForcesAndNoise.fit(forces, kT=KT, noise_std=0.05)
    moment, scale = source.second_moment, (KT / 0.05) ** 2
    identity = torch.eye(4).double()

    def variance(m: torch.Tensor) -> float:
        rest = identity - m
        return float(torch.trace(m @ moment @ m.T) + scale * torch.trace(rest @ rest.T)) / 4

    best = variance(source.alpha)
    assert best == pytest.approx(source.variance(), rel=1e-10)
    for seed in range(20):
        step = 1e-2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).double()
        assert variance(source.alpha + step) > best


def test_measured_variance_is_the_theoretical_one():
    # tr(Sα)/N holds where forces and noise are independent, as they are here.
    forces = _correlated_forces(50_000)
    source = ForcesAndNoise.fit(forces, kT=KT, noise_std=0.03)
    _, f = source(torch.zeros_like(forces), forces, _noise(len(forces), 1))
    assert (f**2).mean().item() == pytest.approx(source.variance(), rel=0.01)


def test_limits_are_force_matching_and_noise_alone():
    forces = _correlated_forces(500)
    x = torch.zeros_like(forces)
    y, f = ForcesAndNoise.fit(forces, kT=KT, noise_std=1e-6)(x, forces, _noise(len(x)))
    assert f.numpy() == pytest.approx(forces.numpy(), abs=1e-2)
    y, f = ForcesAndNoise.fit(1e6 * forces, kT=KT, noise_std=0.1)(x, 1e6 * forces, _noise(len(x)))
    noise = -KT / 0.1**2 * y
    assert (f - noise).abs().max() < 1e-3 * noise.abs().max()


CHIGNOLIN = ("chignolin_ca_forces", "chignolin_ca", 350)
ALA2 = ("ala2_cg_forces", "ala2_cacb", 300)


@pytest.mark.parametrize(
    ("data", "alone", "sigma", "noise", "combined"),
    [
        (CHIGNOLIN, 29.15, 0.02, 34.78, 22.33),
        (CHIGNOLIN, 29.15, 0.05, 13.91, 12.55),
        (CHIGNOLIN, 29.15, 0.1, 6.96, 6.76),
        (CHIGNOLIN, 29.15, 0.2, 3.48, 3.45),
        (ALA2, 25.88, 0.02, 29.81, 18.64),
        (ALA2, 25.88, 0.05, 11.92, 10.45),
        (ALA2, 25.88, 0.1, 5.96, 5.73),
    ],
)
def test_published_data_give_the_published_label_sizes(shared, data, alone, sigma, noise, combined):
    """Root mean square label components in kcal/mol/Å: by theory, and measured."""
    folder, prefix, kelvin = data
    forces = torch.from_numpy(np.load(shared / folder / f"{prefix}_forces.npy").astype(float)) * KCAL_PER_MOL
    kT = thermal_energy(kelvin)
    for name, recorded, noise_std, size in (
        ("atomistic", forces, None, alone),
        ("noise", None, sigma, noise),
        ("forces_and_noise", forces, sigma, combined),
    ):
        source = label_source(name).fit(recorded, kT=kT, noise_std=noise_std)
        _, f = source(torch.zeros_like(forces), forces, _noise(len(forces)))
        assert np.sqrt(source.variance()) / KCAL_PER_MOL == pytest.approx(size, abs=0.006)
        assert (f**2).mean().sqrt().item() / KCAL_PER_MOL == pytest.approx(size, rel=0.005)


def test_missing_forces_or_noise_are_one_sentence():
    forces = torch.zeros(2, 4, 3)
    with pytest.raises(InputError, match="did you mean 'forces_and_noise'"):
        label_source("forces_and_noises")
    with pytest.raises(InputError, match="need recorded forces"):
        label_source("forces_and_noise").fit(None, kT=KT, noise_std=0.05)
    with pytest.raises(InputError, match="need recorded forces"):
        label_source("atomistic").fit(None, kT=KT, noise_std=None)
    with pytest.raises(InputError, match="add no noise"):
        label_source("atomistic").fit(forces, kT=KT, noise_std=0.05)
    for name in ("noise", "forces_and_noise"):
        for kelvin in (None, 0.0, float("nan")):
            with pytest.raises(InputError, match="need the temperature of the data"):
                label_source(name).fit(forces, kT=kelvin, noise_std=0.05)
    for wrong in (None, 0.0, -0.1):
        with pytest.raises(InputError, match="positive standard deviation"):
            label_source("noise").fit(None, kT=KT, noise_std=wrong)
