"""How much data a model needs, by the kind of its labels, their noise, and the priors; dipeptide and chignolin.

    OMP_NUM_THREADS=1 python benchmarks/data_efficiency.py --folder runs/data_efficiency --effort quick

Trains on the published beads of ../shared/data, simulates every model from frames of the reference and from one basin,
and compares with the reference. Every case has a folder of its own, and a result that is there is not made again: a
stopped study goes on with the same command. ``--list`` shows the cases in their order; the most telling come first, one
seed after the other. Prints its table at the end, or with ``--table`` of what there is so far, and keeps it as
``table.md``, ``table.json``, and ``figure.png`` and ``.svg``. The effort ``standard`` is for a workstation with a GPU
(``--device cuda``), ``quick`` for two cores, ``smoke`` tries the program.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from study import PRIOR_ONLY, Case, Study, variant_name
from study_command import Row, study_command
from systems import SYSTEMS

PLAIN, SHARPENED = (), None  # some kinds of modes are sharpened alone for one case, to see what each does
BONDS = ("bonds",)  # what is sharpened of chignolin: its angles and dihedrals are too soft to be blurred
NOISE = (0.02, 0.05, 0.1, 0.2, 0.3)  # Å
LABELS = ("atomistic", "forces_and_noise", "noise")
# Each stage: molecule, fractions, labels, noise levels, priors. What an earlier stage has is left out.
STAGES: tuple[tuple[str, tuple[float, ...], tuple[str, ...], tuple[float, ...], tuple[Any, ...]], ...] = (
    ("dipeptide", (1, 0.01), LABELS[:2], (0.05,), (SHARPENED,)),
    ("dipeptide", (1,), LABELS[2:], (0.05,), (SHARPENED,)),
    ("dipeptide", (1, 0.01), LABELS[1:2], (0.05,), (PLAIN,)),
    ("dipeptide", (1,), LABELS[1:2], (0.05,), (("bonds",), ("angles",))),
    ("dipeptide", (0.1,), LABELS[:2], (0.05,), (SHARPENED,)),
    ("dipeptide", (0.01,), LABELS[2:], (0.05,), (SHARPENED,)),
    ("dipeptide", (1, 0.01), LABELS[1:2], (0.1, 0.02), (PLAIN, SHARPENED)),
    ("chignolin", (0.1, 1), LABELS, (0.1,), (BONDS,)),
    ("dipeptide", (1, 0.1, 0.01), LABELS[1:], NOISE, (SHARPENED,)),
    ("chignolin", (0.1, 1), LABELS[1:], NOISE, (BONDS,)),
    ("chignolin", (0.1, 1), LABELS[1:], (0.1,), (PLAIN, SHARPENED)),
    ("dipeptide", (1, 0.1, 0.01), LABELS[1:], NOISE, (PLAIN,)),
    ("chignolin", (0.1, 1), LABELS[1:], NOISE, (PLAIN,)),
)
PRIOR_NAME = "prior_only"
SIGNS = {"atomistic": "o", "forces_and_noise": "s", "noise": "^"}


def main() -> None:
    """Do what is missing, then show the table."""
    study_command(__doc__, Study, all_rows, report)


def all_rows(seeds: list[int]) -> list[Row]:
    """Return the rows of the study in the order in which they are made."""
    found: dict[tuple[Case, str], Row] = {}
    for seed, (system, fractions, labels, levels, priors) in product(seeds, STAGES):
        for fraction, kind in product(fractions, labels):
            for noise_std in (None,) if kind == "atomistic" else levels:
                case = Case(system, fraction, kind, noise_std, seed)
                plain = (SHARPENED, PRIOR_ONLY) if fraction == 1 and not seed else (SHARPENED,)
                for choice in plain if noise_std is None else priors:
                    found.setdefault((case, variant_name(case, choice)), (case, choice))
    return list(found.values())


def report(study: Study, seeds: list[int], *, quiet: bool = False) -> None:
    """Write, and print, the table and the figure of what there is."""
    results = study.results(all_rows(seeds))
    found = list(results.values())
    if not found:
        print("nothing is done yet")
        return
    texts = [table(name, rows) for name in SYSTEMS if (rows := [row for row in found if row["system"] == name])]
    (study.folder / "table.md").write_text("\n\n".join(texts) + "\n")
    (study.folder / "table.json").write_text(json.dumps(results, indent=1, ensure_ascii=False))
    draw(found, study.folder)
    if not quiet:
        print("\n\n".join(texts))


def table(system: str, rows: list[dict[str, Any]]) -> str:
    """Return the rows of one molecule as Markdown, the most data first."""
    share = SYSTEMS[system].share
    series = list(next((row["series_jensen_shannon_nats"] for row in rows if "figures" in row), {}))
    names = [f"{name.replace('_', ' ')} JS" for name in series]
    head = ["fraction", "labels", "σ / Å", "priors", "seed", "PMF error / kT", "Jensen–Shannon / nats"]
    head += [
        "of it sampling",
        "bonds / Å",
        "angles / rad",
        share,
        f"{share} from reference, from one basin",
        "starts",
        *names,
    ]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    rank = {"atomistic": 0, "noise": 2}.get
    for row in sorted(rows, key=lambda r: (-r["fraction"], rank(r["labels"], 1), r["noise_std"] or 0, r["priors"])):
        noise = "" if row["noise_std"] is None else f"{row['noise_std']:g}"
        start = [f"{row['fraction']:g}", row["labels"].replace("_", " "), noise, row["priors"], str(row["seed"])]
        if row["priors"] == PRIOR_NAME:
            start = ["", "none", "", "prior only", ""]
        cells = [*start, "exploded"] if "failed" in row else start + cells_of(row, series)
        lines.append("| " + " | ".join(cells + [""] * (len(head) - len(cells))) + " |")
    done = next((row for row in rows if "figures" in row), None)
    if done is not None:
        cells = ["floor", "", "", "", "", *figure_cells(done["floor"], ""), percent(done["share"]["reference"]), "", ""]
        cells += [f"{done['series_jensen_shannon_nats'][name]['floor']:.4f}" for name in series]
        lines.append("| " + " | ".join(cells) + " |")
    return f"{system}:\n\n" + "\n".join(lines)


def cells_of(row: dict[str, Any], series: list[str]) -> list[str]:
    """Return what a row found."""
    starts = row["starts"]
    if "doubt" in starts:
        apart, agree = "", starts["doubt"]
    else:
        apart = ", ".join(percent(starts[name]["share"]) for name in ("reference", "one_basin"))
        agree = starts["verdict"]
    more = [f"{row['series_jensen_shannon_nats'][name]['value']:.4f}" for name in series]
    sampling = f"{row['sampling_jensen_shannon_nats']:.4f}"
    return [*figure_cells(row["figures"], sampling), percent(row["share"]["model"]), apart, agree, *more]


def figure_cells(figures: dict[str, Any], sampling: str) -> list[str]:
    """Return the figures with their intervals, and after the divergence how much of it is the model's own sampling."""
    styles = {"pmf_error_kT": ".2f", "jensen_shannon_nats": ".4f", "bond_wasserstein_A": ".4f"}
    styles["angle_wasserstein_rad"] = ".4f"
    cells = []
    for name, style in styles.items():
        ends = figures[name]["interval"]
        interval = "(no interval)" if ends is None else f"({ends[0]:{style}}–{ends[1]:{style}})"
        cells.append(f"{figures[name]['value']:{style}} {interval}")
    return [*cells[:2], sampling, *cells[2:]]


def percent(share: dict[str, float]) -> str:
    """Return a share with its standard error."""
    return f"{100 * share['value']:.1f} ± {100 * share['standard_error']:.1f} %"


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the figures over the fraction of the data: a line for each kind of model, points for seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    names = {"jensen_shannon_nats": "Jensen–Shannon / nats", "bond_wasserstein_A": "bond Wasserstein / Å"}
    systems = [name for name in SYSTEMS if any(r["system"] == name and "figures" in r for r in rows)]
    figure = Figure(figsize=(5.5 * len(names), 4.2 * max(1, len(systems))), layout="constrained")
    axes = figure.subplots(max(1, len(systems)), len(names), squeeze=False)
    for system, line in zip(systems, axes, strict=False):
        done = [row for row in rows if row["system"] == system and "figures" in row]
        for axis, (key, label) in zip(line, names.items(), strict=True):
            draw_panel(axis, done, key)
            axis.set(title=system, xlabel="fraction of the training frames", ylabel=label, xscale="log", yscale="log")
        line[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"figure.{suffix}", dpi=150)


def draw_panel(axis: Any, rows: list[dict[str, Any]], key: str) -> None:
    """Draw one figure of one molecule."""
    floor = rows[0]["floor"][key]["value"]
    prior = [row["figures"][key]["value"] for row in rows if row["priors"] == PRIOR_NAME]
    for value in prior:
        axis.axhline(value, color="gray", linewidth=1, linestyle="-.", label="prior only")
    rows = [row for row in rows if row["priors"] != PRIOR_NAME]
    kinds = sorted({(row["labels"], row["noise_std"] or 0.0, row["priors"]) for row in rows})
    for number, kind in enumerate(kinds):
        own = [row for row in rows if (row["labels"], row["noise_std"] or 0.0, row["priors"]) == kind]
        fractions = sorted({row["fraction"] for row in own})
        values = [[row["figures"][key]["value"] for row in own if row["fraction"] == x] for x in fractions]
        noise = f", {kind[1]:g} Å, {kind[2]}" if kind[1] else ""
        style = {"color": f"C{number % 10}", "marker": SIGNS[kind[0]]}
        axis.plot(
            fractions,
            [np.exp(np.mean(np.log(x))) for x in values],
            label=kind[0].replace("_", " ") + noise,
            linestyle="--" if kind[2] == "plain" else "-",
            **style,
        )
        for fraction, points in zip(fractions, values, strict=True):
            axis.scatter([fraction] * len(points), points, s=12, **style)
    axis.axhline(floor, color="k", linewidth=1, linestyle=":", label="floor")


if __name__ == "__main__":
    main()
