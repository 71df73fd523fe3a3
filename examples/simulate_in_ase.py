# %% [markdown]
# # A trained model in ASE
# Alanine dipeptide as six beads: minimise, run Langevin dynamics, keep the trajectory, look at φ and ψ.

# %%
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import FIRE

import ase_cg
from ase_cg.analysis import ramachandran_angles

data = Path(__file__).parent / "data"

# %% The model comes with ase-cg; it knows its own beads, so it reads them from a PDB of all atoms.
model = ase_cg.CGModel.load("ala2_forces_and_noise")
atoms = ase_cg.read_beads(data / "ala2.pdb", model)
atoms.calc = ase_cg.CGCalculator(model)
print(list(atoms.arrays["bead_name"]))

# %% An ordinary minimisation.
FIRE(atoms, logfile=None).run(fmax=0.01, steps=500)
print(f"minimum at {atoms.get_potential_energy():.3f} eV, of which", atoms.calc.term_energies)

# %% Ordinary Langevin dynamics, with an ordinary trajectory file. For long runs, CGCalculator(model, compile=True) is
# several to many times faster, after a minute of compiling.
rng = np.random.default_rng(0)
thermalize_momenta(atoms, 300, rng=rng)
dynamics = LangevinBAOAB(
    atoms,
    2 * units.fs,
    temperature_K=300,
    T_tau=1000 * units.fs,
    rng=rng,
    trajectory="ala2.traj",
    loginterval=10,
)
dynamics.run(500)

# %% What came of it.
frames = np.array([frame.positions for frame in read("ala2.traj", ":")])
phi, psi = np.degrees(ramachandran_angles(frames, model.only_topology())).T
print(f"{len(frames)} frames, φ {phi.mean():.0f} ± {phi.std():.0f}°, ψ from {psi.min():.0f} to {psi.max():.0f}°")
