"""``ase-cg map``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet, parse_resolution
from ase_cg.errors import InputError

RESOLUTION_HELP = (
    "calpha, calpha_cbeta, backbone, heavy, residue_com, graph:<beads>, atoms such as ACE:C,ALA:N,ALA:CA, or a YAML "
    "file with groups."
)


def map_command(
    context: typer.Context,
    trajectories: Annotated[
        list[Path],
        typer.Argument(help="Trajectories of one molecule, or one YAML file with a list of molecules."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The dataset to write (.h5).")],
    topology: Annotated[
        Path | None, typer.Option("--topology", "-t", help="Structure file with the same atoms (PDB, mmCIF, PSF, …).")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the trajectories, in K.")] = None,
    resolution: Annotated[str, typer.Option("--resolution", "-r", help=RESOLUTION_HELP)] = "calpha",
    termini: Annotated[bool, typer.Option("--termini", help="Name the beads at the ends of chains apart.")] = False,
    residue: Annotated[
        list[str] | None, typer.Option(help="What a residue counts as: SEP=SER; LIG= leaves it out.")
    ] = None,
    force_map: Annotated[
        str, typer.Option(help="How forces are mapped: optimal, constraint_sum, slice, or a .npy file with a matrix.")
    ] = "optimal",
    constraints: Annotated[str, typer.Option(help="Rigid bonds of the trajectories: detect, hbonds, none.")] = "detect",
    ridge: Annotated[float, typer.Option(help="Of the optimal force map, in (eV/Å)²; for short trajectories.")] = 0.0,
    name: Annotated[str, typer.Option(help="Of the molecule.")] = "molecule",
    forces: Annotated[list[Path] | None, typer.Option(help=".npy forces of each .npy trajectory.")] = None,
    weights: Annotated[list[Path] | None, typer.Option(help="Weights of the frames of each trajectory.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help=".npy bead types, compared with the topology.")] = None,
    group: Annotated[str | None, typer.Option(help="Which molecule of a file in mlcg's layout.")] = None,
    no_forces: Annotated[bool, typer.Option("--no-forces", help="Leave recorded forces out.")] = False,
    keep_broken: Annotated[
        bool, typer.Option("--keep-broken", help="Do not put molecules together that the box has cut.")
    ] = False,
    length_unit: Annotated[str | None, typer.Option(help="Of positions without a unit: Å or nm.")] = None,
    force_unit: Annotated[str | None, typer.Option(help="Of forces without a unit, such as kcal/mol/Å.")] = None,
    trajectory_length: Annotated[
        int | None, typer.Option(help="A file is several trajectories of so many frames.")
    ] = None,
    trajectory_starts: Annotated[
        Path | None, typer.Option(help="A file is several trajectories: .npy numbers of their first frames, from 0.")
    ] = None,
    frame_interval: Annotated[str | None, typer.Option(help="Time between frames, such as '1 ps'.")] = None,
    add: Annotated[bool, typer.Option("--add", help="Add the molecule to a dataset that is there.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Map trajectories to a dataset of beads."""
    from ase_cg.data.map import map_molecules, map_trajectory
    from ase_cg.data.mapping_settings import read_molecules

    names = [name]
    if [path.suffix for path in trajectories] in ([".yaml"], [".yml"]):
        _refuse_options_beside_a_list(context, trajectories[0])
        molecules = read_molecules(trajectories[0])
        names = [molecule.name for molecule in molecules]
        path = map_molecules(molecules, output, add=add, overwrite=overwrite, quiet=quiet)
    else:
        if topology is None or temperature is None:
            missing = "--topology" if topology is None else "--temperature"
            raise InputError(f"mapping trajectories needs {missing}")
        path = map_trajectory(
            trajectories,
            output,
            topology=topology,
            resolution=parse_resolution(resolution, termini=termini, residues=residue or []),
            temperature=temperature,
            force_map=force_map,
            constraints=constraints,  # type: ignore[arg-type] # checked there
            ridge=ridge,
            name=name,
            forces=forces or [],
            weights=weights or [],
            embeddings=embeddings,
            group=group,
            no_forces=no_forces,
            keep_broken=keep_broken,
            length_unit=length_unit,
            force_unit=force_unit,
            trajectory_length=trajectory_length,
            trajectory_starts=trajectory_starts,
            frame_interval=frame_interval,
            add=add,
            overwrite=overwrite,
            quiet=quiet,
        )
    typer.echo(f"wrote {path}")
    if not quiet:
        _show_force_maps(path, names)


OPTIONS_BESIDE_A_LIST = frozenset({"trajectories", "output", "add", "overwrite", "quiet"})


def _refuse_options_beside_a_list(context: typer.Context, path: Path) -> None:
    """Refuse options that the list of molecules itself has to give."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in OPTIONS_BESIDE_A_LIST and source is not None and source.name == "COMMANDLINE":
            raise InputError(f"--{name.replace('_', '-')} does nothing beside a list of molecules; say it in {path}")


def _show_force_maps(path: Path, names: list[str]) -> None:
    """Say what the force maps of these molecules do to the forces."""
    from ase_cg.data.dataset import Dataset

    with Dataset.open(path) as dataset:
        for name in names:
            report = dataset.molecules[name].force_map_report
            if report and report["name"] != "optimal":
                typer.echo(f"{name}: forces {report['name']}, root mean square {report['rms']:.2f} kcal/mol/Å")
            elif report:
                typer.echo(
                    f"{name}: optimal force map, root-mean-square force {report['rms_in_sample']:.2f} in sample, "
                    f"{report['rms_held_out']:.2f} held out, {report['rms_constraint_sum']:.2f} by the constraint sum "
                    f"(kcal/mol/Å); {len(report['constraint_groups'])} constraint groups ({report['constraints']}); "
                    f"|W Cᵀ − I| ≤ {report['validity']:.0e}"
                )
