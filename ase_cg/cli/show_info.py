"""How ``ase-cg info`` appears in the terminal."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ase_cg.cli.show import console

if TYPE_CHECKING:
    from rich.console import Console

MANY_BONDS = 30  # kinds of bonds; of more, only those of the widest spread are shown


def show_info(described: Mapping[str, Any]) -> None:
    """Print what :func:`ase_cg.analysis.describe.describe` returned."""
    _show(console(), described)


def _show(out: "Console", described: Mapping[str, Any]) -> None:
    view: Callable[..., None] = _VIEWS.get(described["kind"], _show_values)
    view(out, described)


def _line(out: "Console", text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def _show_dataset(out: "Console", described: Mapping[str, Any]) -> None:
    _line(
        out, f"dataset {described['path']}: {len(described['molecules'])} molecule(s); positions in Å, forces in eV/Å"
    )
    for name, molecule in described["molecules"].items():
        _show_molecule(out, name, molecule)


def _show_molecule(out: "Console", name: str, molecule: Mapping[str, Any]) -> None:
    resolution = molecule["resolution"]
    kind = resolution if isinstance(resolution, str) else "chosen atoms or groups"
    _line(
        out,
        f"\n{name}: {molecule['beads']} beads ({kind}), "
        f"{molecule['bonds_count']} bonds; {molecule['frames']} frames in {molecule['trajectories']} trajectories at "
        f"{molecule['temperature_K']:g} K",
    )
    report = molecule["force_map_report"]
    if not molecule["forces"]:
        _line(out, "  no forces")
    else:
        rms = f", root mean square {report['rms']:.2f} kcal/mol/Å" if "rms" in report else ""
        _line(out, f"  forces by the force map '{molecule['force_map']}'{rms}")
        ratio, error = molecule["virial_ratio"], molecule["virial_error"]
        if ratio is not None:
            _line(out, f"  −⟨x·F⟩ / ((3N − 3) kT) = {ratio:.3f} ± {error:.3f} (1 without bias)")
        _show_force_check(out, molecule["force_check"])
    if molecule["weights"]:
        _line(out, f"  frames have weights; they are worth {molecule['effective_frames']:.0f} equal ones")
    _show_tables(out, molecule)
    for warning in molecule["warnings"]:
        out.print(f"  warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _show_force_check(out: "Console", check: Mapping[str, Any]) -> None:
    if check["verdict"] == "undecided":
        _line(out, "  forces and positions are not compared: too few frames, or no two beads that are held together")
        return
    ratios = ", ".join(f"{r['value']:.2f} ± {r['error']:.2f} (r < {r['reach']:.1f} Å)" for r in check["stein_ratios"])
    _line(
        out,
        f"  forces are {check['verdict']} with positions at {check['temperature']:g} K, p = {check['p']:.2g}; "
        f"−⟨F·g⟩/(kT ⟨∇·g⟩) = {ratios} (Stein, 1 without bias)",
    )


def _show_tables(out: "Console", molecule: Mapping[str, Any]) -> None:
    from rich.table import Table

    if molecule["bonds"]:
        kinds = sorted(molecule["bonds"].items(), key=lambda item: -item[1]["std"])
        title = "bonds / Å" if len(kinds) <= MANY_BONDS else f"bonds / Å, the {MANY_BONDS} widest of {len(kinds)} kinds"
        table = Table("bond", "mean", "std", "min", "max", title=title, title_justify="left")
        for kind, values in sorted(kinds[:MANY_BONDS]):
            table.add_row(kind, *(f"{values[key]:.3f}" for key in ("mean", "std", "min", "max")))
        out.print(table)
    if molecule["force_rms"]:
        table = Table("bead", "root mean square force / (kcal/mol/Å)")
        for bead, rms in molecule["force_rms"].items():
            table.add_row(bead, f"{rms:.2f}")
        out.print(table)


def _show_model(out: "Console", described: Mapping[str, Any]) -> None:
    card = described["card"]
    network = described["backbone"] or "no network"
    _line(
        out,
        f"model at {card['temperature']:g} K: {network} with {described['parameters']} parameters, priors "
        f"{', '.join(described['priors'])}, labels {card['labels']}",
    )
    _line(out, f"  bead types: {', '.join(described['vocabulary'])}")
    numbering = card["provenance"].get("numbering")
    if numbering:
        rows = ", ".join(f"{residue} {row}" for residue, row in numbering["rows"].items())
        _line(out, f"  imported with the residue numbers {numbering['name']}: {rows}")
    molecules = ", ".join(f"{len(topology['names'])} beads" for topology in card["topologies"])
    _line(out, f"  trained on molecules of {molecules}")
    if described["sharpened_priors"]:
        names = ", ".join(described["sharpened_priors"])
        _line(out, f"  sharpened priors: {names}; trained with noise of {card['noise_std']:g} Å, simulated clean")
    for name, value in card["provenance"].get("metrics", {}).items():
        _line(out, f"  {name}: {value:.6g}")


def _show_training(out: "Console", described: Mapping[str, Any]) -> None:
    recipe = described["recipe"]
    _line(out, f"training {recipe['name']}, {_epochs(described, recipe)}, labels {recipe['labels']}")
    for name, value in described["last_losses"].items():
        _line(out, f"  {name}: {value:.4g} {described['loss_unit']}")
    if "flow" in described:
        _show_flow(out, described["flow"])


def _show_flow(out: "Console", described: Mapping[str, Any]) -> None:
    _line(out, f"flow {described['kernel']['name']}, {_epochs(described, described)}")
    for name, value in described["last_losses"].items():
        _line(out, f"  {name}: {value:.4g}")
    for name, bonds in described.get("bonds", {}).items():
        missed = ["–".join(str(bead) for bead in bond["beads"]) for bond in bonds if not bond["reproduced"]]
        _line(out, f"  {name}: {len(bonds) - len(missed)} of {len(bonds)} bonds reproduced")
        if missed:
            _line(out, f"    not: {', '.join(missed)} (beads counted from 0)")
    _line(out, "  labels: finished" if described["labelled"] else "  labels: not finished")


def _show_trainings(out: "Console", described: Mapping[str, Any]) -> None:
    recipe, networks = described["recipe"], described["networks"]
    done = sum(network["finished"] for network in networks.values())
    state = f"{_state(described)}: {done} of {len(networks)} networks"
    _line(out, f"training {recipe['name']}, {state}, labels {recipe['labels']}")
    for name, network in networks.items():
        losses = "".join(f", {loss} {value:.4g}" for loss, value in network["last_losses"].items())
        _line(out, f"  {name}, {_epochs(network, recipe)}{losses}{losses and ' ' + described['loss_unit']}")
    if "chosen" in described:
        _line(out, f"  chosen: {described['chosen']} ({described['rule']})")


def _state(described: Mapping[str, Any]) -> str:
    return "finished" if described["finished"] else "not finished"


def _epochs(described: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    return f"{_state(described)}: {described['epochs_done']} of {recipe['training']['epochs']} epochs"


def _show_simulation(out: "Console", described: Mapping[str, Any]) -> None:
    temperature = described["temperature"]
    kelvin = ", ".join(f"{t:g}" for t in (temperature if isinstance(temperature, list) else [temperature]))
    _line(
        out,
        f"simulation, {_state(described)}: {described['trajectories']} of {described['expected']} trajectories of "
        f"{described['duration']} ({described['frames_each']} frames each) at {kelvin} K, steps of "
        f"{described['time_step']}" + (", priors only" if described["prior_only"] else ""),
    )
    summary = described.get("summary", {})
    for stop in summary.get("stopped", []):
        _line(out, f"  replica {stop['replica']} exploded at step {stop['step']}: {stop['reason']}")
    for molecule, exchanges in summary.get("exchanges", {}).items():
        rates = ", ".join(
            "–" if pair["acceptance"] is None else f"{pair['acceptance']:.2f}" for pair in exchanges["pairs"]
        )
        _line(out, f"  exchanges of {molecule}: acceptance {rates}; {exchanges['round_trips']} round trips")


def _show_run(out: "Console", described: Mapping[str, Any]) -> None:
    for name, part in described["parts"].items():
        _line(out, f"── {name}")
        _show(out, part)


def _show_analysis(out: "Console", described: Mapping[str, Any]) -> None:
    for row, values in described.get("rows", {}).items():
        shown = ", ".join(f"{key} {_number(value)}" for key, value in values.items())
        _line(out, f"{row}: {shown}")


def _number(value: Any) -> str:
    value = value.get("value") if isinstance(value, Mapping) else value
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_values(out: "Console", described: Mapping[str, Any]) -> None:
    _line(out, ", ".join(f"{key} {value}" for key, value in described.items()))


_VIEWS: Mapping[str, Callable[..., None]] = {
    "dataset": _show_dataset,
    "model": _show_model,
    "training": _show_training,
    "trainings": _show_trainings,
    "flow": _show_flow,
    "simulation": _show_simulation,
    "run": _show_run,
    "analysis": _show_analysis,
}
