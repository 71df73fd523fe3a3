"""Labels of generative kernels against forces and noise: the error of the free energy beside that of the bonds.

    OMP_NUM_THREADS=1 python benchmarks/kernels.py --folder runs/data_efficiency --effort quick

Trains on the published beads of ../shared/data like ``data_efficiency.py``, in the same folder: what that study has
done is not done again. Every case has a folder of its own, and a result that is there is not made again: a stopped
study goes on with the same command, and on another machine with ``--known kernels.json``, the results so far.
``--list`` shows the cases in their order, the most telling first. Prints its table at the end, or with ``--table`` of
what there is so far, and keeps it as ``kernels.md``, ``kernels.json``, and ``kernels.png`` and ``.svg``.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study import Case, Study
from study_command import Row, study_command
from systems import SYSTEMS

from ase_cg import Dataset
from ase_cg.analysis.pareto import GLOBAL, LOCAL, pareto_front
from ase_cg.flows.kernel import FlowKernel
from ase_cg.flows.labelling import label_batch
from ase_cg.units import thermal_energy

PLAIN: tuple[str, ...] = ()
SHARPENED = {"dipeptide": None, "chignolin": ("bonds",)}  # all; what noise blurs
KERNELS: dict[str, dict[str, Any]] = {
    "cnf": {"name": "cnf"},
    "cnf_published": {"name": "cnf", "noise_std": 0.05, "prior_std": 0.05},  # the same flow, and noisier labels
    "cnf_wide": {"name": "cnf", "prior_std": 0.28},
    "cnf_often": {"name": "cnf", "draws": 10},
    "cnf_averaged": {"name": "cnf", "ema_decay": 0.999},
    "coupling": {"name": "coupling", "draws": 10},  # labels of a frame
    "coupling_once": {"name": "coupling"},
    "coupling_published": {"name": "coupling", "start": "noise"},  # along the axes of the laboratory
    "coupling_wide": {"name": "coupling", "noise_std": 0.1},
    # What the harmonic start does without any training.
    "coupling_untrained": {"name": "coupling", "epochs": 1, "learning_rate": 1e-12, "final_learning_rate": 1e-12},
    "transition": {"name": "transition", "lag": "100 ps"},
}
# On all frames of the dipeptide only: as published, no training, other widths, averaged weights; and transitions, whose
# frames are one trajectory.
ONCE = (
    "coupling_once",
    "coupling_untrained",
    "coupling_wide",
    "transition",
    "cnf_averaged",
    "coupling_published",
    "cnf_published",
    "cnf_wide",
)
FEWER = ("coupling_once", "coupling_published", "cnf_often")  # on fewer frames of it
FRAME_INTERVAL = "100 ps"  # of the dipeptide: every fifth frame is one of a file whose frames are 500 ps apart
TIMED_FRAMES = 64  # labelled again, alone, for the time of a frame
EPOCHS = {"smoke": 1, "quick": 100, "standard": 1000}  # of a flow trained on all frames; ten times as many of fewer
FIGURES = {"PMF error / kT": ("pmf_error_kT", ".2f"), "Jensen–Shannon / nats": ("jensen_shannon_nats", ".4f")}
FIGURES |= {"bonds / Å": ("bond_wasserstein_A", ".4f"), "angles / rad": ("angle_wasserstein_rad", ".4f")}
SIGNS = {1.0: "o", 0.1: "s", 0.01: "^"}


@dataclass(frozen=True)
class KernelCase(Case):
    """A training on the labels of a flow, one of :data:`KERNELS`."""

    kernel: str = "cnf"

    @property
    def folder(self) -> Path:
        """Where it lies below the folder of the study."""
        return super().folder.parent / f"{self.fraction:g}_{self.labels}_{self.kernel}_seed_{self.seed}"


class KernelStudy(Study):
    """A study that also trains on labels of flows, and says what these cost."""

    def recipe(self, case: Case, dataset: Path) -> dict[str, Any]:
        """Return the recipe of a case; a flow gets about as many updates whatever its data."""
        recipe = super().recipe(case, dataset)
        if not isinstance(case, KernelCase):
            return recipe
        epochs = round(EPOCHS[self.effort] * min(10.0, 1 / case.fraction))
        # A tenth of the frames in batches a tenth as large would be as many updates; smaller batches suit few frames.
        recipe["kernel"] = {"epochs": epochs, "batch_size": 128, "draws": 1} | KERNELS[case.kernel]
        # As many updates of the network whatever the number of labels.
        draws = recipe["kernel"]["draws"]
        for key in ("epochs", "patience"):
            recipe["training"][key] = math.ceil(recipe["training"][key] / draws)
        if "lag" in recipe["kernel"]:
            recipe["data"]["frame_interval"] = FRAME_INTERVAL
        return recipe

    def row(self, case: Case, sharpened: Sequence[str] | None, model: Path) -> dict[str, Any]:
        """Simulate and judge a model; of flows with what their labels cost."""
        row = super().row(case, sharpened, model)
        if isinstance(case, KernelCase):
            row["flow"] = costs(model.parent / "flow", self.folder / case.system / "reference.h5")
        return row


def costs(folder: Path, dataset: Path) -> dict[str, Any]:
    """Return the seconds that a flow's training took, those of a label on one thread, and what its check found.

    The training's are those between its files: of one that was stopped and resumed they are too many.
    """
    kernel = FlowKernel.load(folder / "flow.safetensors")
    with Dataset.open(dataset) as opened:
        molecule = opened.only_molecule()
        earlier, x = (torch.from_numpy(molecule.coordinates(np.arange(TIMED_FRAMES) + n)).float() for n in (0, 1))
        types = kernel.types_of(molecule.name)
        kT = thermal_energy(molecule.temperature)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.process_time()
    for rows in torch.arange(TIMED_FRAMES).split(16):
        from_earlier = None if kernel.lag is None else earlier[rows]
        label_batch(kernel.flow, types, x[rows], (0,), rows, kT=kT, earlier=from_earlier)
    label_seconds = (time.process_time() - started) / TIMED_FRAMES
    torch.set_num_threads(threads)
    begun, ended = ((folder / name).stat().st_mtime for name in ("training.json", "flow.safetensors"))
    return {"training_seconds": ended - begun, "label_seconds": label_seconds, "provenance": kernel.provenance}


def all_rows(seeds: list[int]) -> list[Row]:
    """Return the rows of the study in the order in which they are made."""
    rows: list[Row] = []
    later: list[Row] = []
    for seed, (system, fractions) in product(seeds, (("dipeptide", (1, 0.1, 0.01)), ("chignolin", (0.1, 1)))):
        for fraction in fractions:
            place = (system, fraction, seed)
            rows.append(flow_row(*place, "cnf"))
            noise = [Case(system, fraction, "noise", std, seed) for std in (0.1, 0.05)]
            rows += [(case, priors) for case in noise for priors in (PLAIN, SHARPENED[system])]
            rows.append((Case(system, fraction, "atomistic", None, seed), None))
            both = [Case(system, fraction, "forces_and_noise", std, seed) for std in (0.05, 0.1)]
            rows += [(case, priors) for case in both for priors in (SHARPENED[system], PLAIN)]
            later += [flow_row(*place, "coupling")]
            later += [flow_row(*place, kernel, "flow_and_forces") for kernel in ("cnf", "coupling")]
            later += [flow_row(*place, kernel) for kernel in ONCE if place == ("dipeptide", 1, 0)]
            if system == "dipeptide" and fraction < 1 and not seed:
                later += [flow_row(*place, kernel) for kernel in FEWER]
    return rows + later


def flow_row(system: str, fraction: float, seed: int, kernel: str, labels: str = "flow") -> Row:
    """Return the row of a flow."""
    return KernelCase(system, fraction, labels, None, seed, kernel), None


def main() -> None:
    """Do what is missing, then show the table."""
    study_command(__doc__, KernelStudy, all_rows, report)


def report(study: Study, seeds: list[int], *, quiet: bool = False) -> None:
    """Write, and print, the tables and the figure of what there is."""
    results = study.results(all_rows(seeds))
    found = list(results.values())
    if not found:
        print("nothing is done yet")
        return
    texts = [table(name, own) for name in SYSTEMS if (own := [row for row in found if row["system"] == name])]
    study.folder.mkdir(parents=True, exist_ok=True)
    (study.folder / "kernels.md").write_text("\n\n".join(texts) + "\n")
    (study.folder / "kernels.json").write_text(json.dumps(results, indent=1, ensure_ascii=False))
    draw(found, study.folder)
    if not quiet:
        print("\n\n".join(texts))


def table(system: str, rows: list[dict[str, Any]]) -> str:
    """Return the rows of one molecule as Markdown."""
    head = ["fraction", "labels", "priors", "seed", *FIGURES, SYSTEMS[system].share]
    head += ["label r.m.s. / (kcal/mol/Å)", "flow's training / s", "CPU time of a label / ms"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in rows:
        cells = [f"{row['fraction']:g}", label_name(row), row["priors"], str(row["seed"])]
        if "failed" in row:
            lines.append("| " + " | ".join([*cells, "exploded", *[""] * (len(head) - 5)]) + " |")
            continue
        cells += [figure_cell(row["figures"].get(key), style) for key, style in FIGURES.values()]
        share, flow = row["share"]["model"], row.get("flow")
        cells.append(f"{100 * share['value']:.1f} ± {100 * share['standard_error']:.1f} %")
        cells.append(f"{row['training']['label_variance'] ** 0.5:.2f}")
        seconds = flow.get("training_seconds") if flow else None
        cells += ["" if seconds is None else f"{seconds:.0f}", f"{1e3 * flow['label_seconds']:.1f}" if flow else ""]
        lines.append("| " + " | ".join(cells) + " |")
    done = next((row for row in rows if "figures" in row), None)
    if done is not None:
        floor = [figure_cell(done["floor"].get(key), style) for key, style in FIGURES.values()]
        share = done["share"]["reference"]
        cells = ["floor", "", "", "", *floor, f"{100 * share['value']:.1f} ± {100 * share['standard_error']:.1f} %"]
        lines.append("| " + " | ".join([*cells, "", "", ""]) + " |")
    return f"{system}:\n\n" + "\n".join(lines)


def figure_cell(figure: dict[str, Any] | None, style: str) -> str:
    """Return a figure and half its interval, as far as they are known: rows copied from documentation lack some."""
    if figure is None:
        return ""
    low, high = figure.get("interval") or (None, None)
    return f"{figure['value']:{style}}" + ("" if low is None else f" ± {(high - low) / 2:{style}}")


def label_name(row: dict[str, Any]) -> str:
    """Return what a row was trained on."""
    noise = f", {row['noise_std']:g} Å" if row["noise_std"] else ""
    kernel = f", {row['kernel'].replace('_', ' ')}" if "kernel" in row else ""
    return row["labels"].replace("_", " ") + noise + kernel


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the PMF error over the bonds' Wasserstein distance, a panel for each molecule."""
    from matplotlib.figure import Figure

    done = {name: [r for r in rows if r["system"] == name and "figures" in r] for name in SYSTEMS}
    done = {name: own for name, own in done.items() if own}
    labels = sorted({label_name(row) for own in done.values() for row in own})
    figure = Figure(figsize=(7.5, 4.2 * max(1, len(done))), layout="constrained")
    axes = figure.subplots(max(1, len(done)), 1, squeeze=False)[:, 0]
    for (name, own), axis in zip(done.items(), axes, strict=False):
        draw_panel(axis, own, labels)
        axis.set(title=name, xlabel="bond Wasserstein / Å", ylabel="PMF error / kT")
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"kernels.{suffix}", dpi=150)


def draw_panel(axis: Any, rows: list[dict[str, Any]], labels: list[str]) -> None:
    """Draw one molecule: a colour for each label, hollow with plain priors, a sign for each fraction; the front."""
    from matplotlib import colormaps
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    named = set()
    for row in sorted(rows, key=lambda row: (label_name(row), row["priors"])):
        x, y = (row["figures"][key]["value"] for key in (LOCAL, GLOBAL))
        color, plain = colormaps["tab20"](labels.index(label_name(row)) % 20), row["priors"] == "plain"
        kind = label_name(row) + (", plain" if plain else ", sharpened" if row["noise_std"] else "")
        name = None if kind in named else kind
        named.add(kind)
        faces = "none" if plain else color
        axis.scatter([x], [y], facecolors=faces, edgecolors=color, marker=SIGNS[row["fraction"]], label=name)
    figures = {str(number): row["figures"] for number, row in enumerate(rows)}
    front = [figures[name] for name in pareto_front(figures)]
    line = [[figure[key]["value"] for figure in front] for key in (LOCAL, GLOBAL)]
    axis.plot(*line, color="gray", linewidth=1, zorder=0, drawstyle="steps-pre", label="Pareto front")
    floor = rows[0]["floor"]
    axis.axvline(floor[LOCAL]["value"], color="k", linewidth=1, linestyle=":", label="floor")
    axis.axhline(floor[GLOBAL]["value"], color="k", linewidth=1, linestyle=":")
    axis.set(xscale="log", yscale="log")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(subs=(1, 2, 5)))
        side.set_major_formatter(FormatStrFormatter("%g"))
        side.set_minor_formatter(NullFormatter())
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


if __name__ == "__main__":
    main()
