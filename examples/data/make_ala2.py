"""Make the alanine dipeptide data of the examples: all-atom frames with forces, and a bead reference.

    python -m pip install openmm
    python examples/data/make_ala2.py run --folder runs/ala2_data --workers 2   # resumable, under an hour
    python examples/data/make_ala2.py assemble --folder runs/ala2_data          # writes the committed files

Everything that decides the result is a constant below, so that the card beside the data can name it.

The φ > 0 basin is entered about once in 300 ns at 300 K, so each walker is a short ladder of temperatures
that exchange (parallel tempering); only its 300 K rung is kept. A walker runs in segments, each starting from
the positions and velocities that the one before left behind, with a seed of its own, so a killed run
continues as if it had never stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FRICTION = 1.0  # 1/ps
TIME_STEP = 0.002  # ps
HYDROGEN_MASS = 3.0  # amu, taken from the heavy atom it is bonded to
FORCE_FIELD = ("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
BEAD_ATOMS = ("ACE-C", "ALA-N", "ALA-CA", "ALA-CB", "ALA-C", "NME-N")

TEMPERATURES = (300.0, 406.0, 550.0)  # K; the first rung is the product
WALKERS = 6
EQUILIBRATION = 1200.0  # ps, discarded
SEGMENT = 600.0  # ps
SEGMENTS = 31
EXCHANGE_INTERVAL = 1.0  # ps, also between bead frames
FORCE_INTERVAL = 4.0  # ps
SEED = 20261121

# Rounded to a power of two, so that the low bits are zero and compress away: about 0.002 Å and
# 0.024 kcal/mol/Å, far below thermal motion (0.03 Å and more) and force fluctuation (25 kcal/mol/Å).
POSITION_QUANTUM = 2.0**-12  # nm, all atoms
BEAD_QUANTUM = 2.0**-9  # Å, beads
FORCE_QUANTUM = 1.0  # kJ/mol/nm


def build() -> tuple[Any, Any, Any]:
    """Return topology, OpenMM system and starting positions of ACE-ALA-NME with hydrogens added."""
    import openmm
    from openmm import app, unit

    start = app.PDBFile(str(HERE / "ala2_start.pdb"))
    field = app.ForceField(*FORCE_FIELD)
    modeller = app.Modeller(start.topology, start.positions)
    modeller.addHydrogens(field)
    system = field.createSystem(
        modeller.topology,
        nonbondedMethod=app.NoCutoff,
        constraints=None,
        hydrogenMass=HYDROGEN_MASS * unit.amu,
        removeCMMotion=False,
    )
    _use_fast_obc(system, openmm)
    return modeller.topology, system, modeller.positions


def _use_fast_obc(system: Any, openmm: Any) -> None:
    """Replace the OBC2 model written as CustomGBForce by OpenMM's own class: same energy, 30 times the speed."""
    index = next(i for i, f in enumerate(system.getForces()) if isinstance(f, openmm.CustomGBForce))
    custom = system.getForce(index)
    native = openmm.GBSAOBCForce()
    offset = 0.009  # nm, of the published model; the custom force stores radius − offset
    for i in range(custom.getNumParticles()):
        charge, reduced, scaled = custom.getParticleParameters(i)
        native.addParticle(charge, reduced + offset, scaled / reduced)
    native.setSolventDielectric(78.5)
    native.setSoluteDielectric(1.0)
    native.setNonbondedMethod(openmm.GBSAOBCForce.NoCutoff)
    system.removeForce(index)
    system.addForce(native)


def bead_indices(topology: Any) -> list[int]:
    names = {f"{a.residue.name}-{a.name}": a.index for a in topology.atoms()}
    return [names[name] for name in BEAD_ATOMS]


class Ladder:
    """Rungs of one walker: the same molecule at several temperatures, exchanging configurations."""

    def __init__(self, seeds: list[int]) -> None:
        import openmm
        from openmm import unit

        topology, system, self.start = build()
        self.beads = bead_indices(topology)
        self.kT = [unit.MOLAR_GAS_CONSTANT_R._value * 1e-3 * t for t in TEMPERATURES]  # kJ/mol
        self.rungs = []
        # Reference: for 22 atoms its plain double-precision loops are far faster than the threaded CPU platform.
        platform = openmm.Platform.getPlatformByName("Reference")
        for temperature, seed in zip(TEMPERATURES, seeds, strict=True):
            integrator = openmm.LangevinMiddleIntegrator(
                temperature * unit.kelvin, FRICTION / unit.picosecond, TIME_STEP * unit.picosecond
            )
            integrator.setRandomNumberSeed(seed)
            self.rungs.append((openmm.Context(system, integrator, platform), integrator))
        self.rng = np.random.default_rng(seeds)
        self.parity = 0
        self.tried = self.accepted = 0

    def minimize(self) -> None:
        """Start every rung from the minimised structure, with velocities of its temperature."""
        import openmm

        for (context, _), temperature in zip(self.rungs, TEMPERATURES, strict=True):
            context.setPositions(self.start)
            openmm.LocalEnergyMinimizer.minimize(context)
            context.setVelocitiesToTemperature(temperature, int(self.rng.integers(1, 2**31 - 1)))

    def advance(self) -> None:
        """Run all rungs for one interval and try to exchange neighbours."""
        for _, integrator in self.rungs:
            integrator.step(round(EXCHANGE_INTERVAL / TIME_STEP))
        states = [context.getState(positions=True, velocities=True, energy=True) for context, _ in self.rungs]
        energies = [state.getPotentialEnergy()._value for state in states]
        for low in range(self.parity, len(self.rungs) - 1, 2):
            high = low + 1
            exponent = (1 / self.kT[low] - 1 / self.kT[high]) * (energies[low] - energies[high])
            self.tried += 1
            if np.log(self.rng.random()) < exponent:
                self.accepted += 1
                scale = np.sqrt(TEMPERATURES[high] / TEMPERATURES[low])
                for rung, state, factor in ((low, states[high], 1 / scale), (high, states[low], scale)):
                    self.rungs[rung][0].setPositions(state.getPositions(asNumpy=True)._value)
                    self.rungs[rung][0].setVelocities(state.getVelocities(asNumpy=True)._value * factor)
        self.parity = 1 - self.parity

    def save(self) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities of all rungs."""
        states = [context.getState(positions=True, velocities=True) for context, _ in self.rungs]
        return (
            np.stack([state.getPositions(asNumpy=True)._value for state in states]),
            np.stack([state.getVelocities(asNumpy=True)._value for state in states]),
        )

    def load(self, positions: np.ndarray, velocities: np.ndarray) -> None:
        """Continue all rungs from saved positions and velocities."""
        for (context, _), x, v in zip(self.rungs, positions, velocities, strict=True):
            context.setPositions(x)
            context.setVelocities(v)


def run_walker(folder: Path, walker: int) -> None:
    """Run all segments of one walker that are not yet on disk."""
    for segment in range(SEGMENTS):
        target = folder / f"walker_{walker:02d}_{segment:03d}.npz"
        if target.exists():
            continue
        words = np.random.SeedSequence([SEED, walker, segment]).generate_state(len(TEMPERATURES))
        ladder = Ladder([int(word % (2**31 - 1)) + 1 for word in words])
        if segment == 0:
            ladder.minimize()
            for _ in range(round(EQUILIBRATION / EXCHANGE_INTERVAL)):
                ladder.advance()
        else:
            with np.load(folder / f"walker_{walker:02d}_{segment - 1:03d}.npz") as last:
                ladder.load(last["last_positions"], last["last_velocities"])
        arrays = _run_segment(ladder)
        partial = target.with_name(f".partial-{target.name}")
        np.savez_compressed(partial, **arrays)
        partial.rename(target)


def _run_segment(ladder: Ladder) -> dict[str, np.ndarray]:
    """Run one segment and return what its 300 K rung did, and where all rungs ended."""
    bead_positions, positions, forces = [], [], []
    frames_per_force = round(FORCE_INTERVAL / EXCHANGE_INTERVAL)
    for frame in range(1, round(SEGMENT / EXCHANGE_INTERVAL) + 1):
        ladder.advance()
        with_forces = frame % frames_per_force == 0
        state = ladder.rungs[0][0].getState(positions=True, forces=with_forces)
        x = state.getPositions(asNumpy=True)._value
        bead_positions.append((x[ladder.beads] - x[ladder.beads].mean(0)).astype(np.float32))
        if with_forces:
            positions.append((x - x.mean(0)).astype(np.float32))
            forces.append(state.getForces(asNumpy=True)._value.astype(np.float32))
    last_positions, last_velocities = ladder.save()
    return {
        "beads": np.array(bead_positions),
        "positions": np.array(positions),
        "forces": np.array(forces),
        "acceptance": np.array([ladder.accepted, ladder.tried]),
        "last_positions": last_positions,
        "last_velocities": last_velocities,
    }


def assemble(folder: Path) -> None:
    """Join the segments into the committed files, and write the card's figures."""
    import mdtraj
    from openmm import app, unit

    topology, _, _ = build()
    segments = [folder / f"walker_{w:02d}_{s:03d}.npz" for w in range(WALKERS) for s in range(SEGMENTS)]
    missing = [path.name for path in segments if not path.is_file()]
    if missing:
        raise SystemExit(f"{len(missing)} segments are not there yet, such as {missing[0]}; run the first step again")
    parts = [dict(np.load(path)) for path in segments]
    with (HERE / "ala2.pdb").open("w") as file:
        x = parts[0]["positions"][0]
        app.PDBFile.writeFile(topology, (x - x.mean(0)) * unit.nanometer, file)
    positions = _rounded(np.concatenate([part["positions"] for part in parts]), POSITION_QUANTUM)
    forces = _rounded(np.concatenate([part["forces"] for part in parts]), FORCE_QUANTUM)
    _write_all_atom(HERE / "ala2_all_atom.h5", mdtraj.load(str(HERE / "ala2.pdb")).topology, positions, forces)
    beads = np.concatenate([part["beads"] for part in parts])
    _write_reference(HERE / "ala2_reference.h5", _rounded(beads * 10.0, BEAD_QUANTUM))
    print(f"{len(positions)} all-atom frames with forces, {len(beads)} frames of beads")


def _rounded(values: np.ndarray, quantum: float) -> np.ndarray:
    return (np.round(values / quantum) * quantum).astype(np.float32)


def _write_all_atom(path: Path, topology: Any, positions: np.ndarray, forces: np.ndarray) -> None:
    """Write MDTraj's HDF5 (so that mdtraj.load reads it) with a further array of forces."""
    import h5py
    from mdtraj.formats import HDF5TrajectoryFile

    partial = path.with_name(f".partial-{path.name}")
    with HDF5TrajectoryFile(str(partial), "w") as file:
        file.topology = topology
        file.title = "Alanine dipeptide with forces; see README.md beside this file"
        file.write(coordinates=positions[:1], time=np.zeros(1, dtype=np.float32))
    # The small file has MDTraj's layout; its arrays are replaced by the full ones, packed more tightly.
    frames_per_walker = len(positions) // WALKERS
    with h5py.File(partial, "r+") as file:
        attributes = dict(file["coordinates"].attrs)
        time_attributes = dict(file["time"].attrs)
        del file["coordinates"], file["time"]
        packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "chunks": (256, *positions.shape[1:])}
        file.create_dataset("coordinates", data=positions, maxshape=(None, *positions.shape[1:]), **packed)
        file.create_dataset("forces", data=forces, maxshape=(None, *positions.shape[1:]), **packed)
        times = np.tile(np.arange(1, frames_per_walker + 1) * FORCE_INTERVAL, WALKERS).astype(np.float32)
        file.create_dataset("time", data=times, maxshape=(None,), chunks=(4096,), compression="gzip", shuffle=True)
        file["coordinates"].attrs.update({"units": attributes["units"]})
        file["time"].attrs.update({"units": time_attributes["units"]})
        file["forces"].attrs["units"] = "kJ/mol/nm"
    partial.replace(path)


def _write_reference(path: Path, beads: np.ndarray) -> None:
    """Write bead positions (F, 6, 3) in Å as a dataset of ase-cg, a trajectory a walker."""
    from ase_cg.beads.atoms import read_topology
    from ase_cg.data.dataset_writer import create_dataset

    names = [name.replace("-", ":") for name in BEAD_ATOMS]
    topology = read_topology(HERE / "ala2.pdb", names)
    with (
        create_dataset(path, overwrite=True, compress=True) as dataset,
        dataset.molecule(
            "ala2",
            topology,
            temperature=TEMPERATURES[0],
            resolution=tuple(names),
            mapping={"made_by": "examples/data/make_ala2.py"},
        ) as molecule,
    ):
        for walker in np.split(beads, WALKERS):
            molecule.next_trajectory()
            molecule.append(walker)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "assemble"))
    parser.add_argument("--folder", type=Path, required=True, help="where the segments are kept")
    parser.add_argument("--workers", type=int, default=2, help="walkers that run at the same time")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.step == "run":
        with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
            pool.starmap(run_walker, [(arguments.folder, walker) for walker in range(WALKERS)], chunksize=1)
    else:
        assemble(arguments.folder)


if __name__ == "__main__":
    main()
