"""Accuracy of the label kinds on alanine dipeptide, on the same data with the same effort.

    python benchmarks/ala2_labels.py --folder runs/ala2_labels

Trains and simulates the demo's recipe with each kind of label, with and without sharpened priors, and prints one
table. Resumable: give the same command again. About five minutes a row on one core.
"""

import argparse
from pathlib import Path

from ase_cg import Comparison, Recipe, run

ROOT = Path(__file__).parent.parent
BASE = ROOT / "training" / "ala2_forces_and_noise.yaml"
ROWS = {
    "atomistic": {"labels": "atomistic", "noise_std": None},
    "noise, plain": {"labels": "noise", "sharpened_priors": False},
    "noise, sharpened": {"labels": "noise"},
    "forces and noise, plain": {"sharpened_priors": False},
    "forces and noise, sharpened": {},
}


def figures(comparison: Comparison, row: str) -> str:
    """Return the three figures of a row of a comparison as cells of a Markdown table."""
    found = comparison.rows[row]
    return " | ".join(
        f"{found[name]['value']:{style}}"
        for name, style in (("pmf_error_kT", ".2f"), ("jensen_shannon_nats", ".4f"), ("bond_wasserstein_A", ".5f"))
    )


def main() -> None:
    """Run all rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    lines = ["| labels | PMF error / kT | Jensen–Shannon / nats | bond Wasserstein / Å |", "| --- | --- | --- | --- |"]
    comparison = None
    for name, changes in ROWS.items():
        recipe = Recipe.read(BASE).model_copy(update=changes)
        comparison = run(recipe, folder / name.replace(",", "").replace(" ", "_"))
        lines.append(f"| {name} | {figures(comparison, 'model')} |")
    if comparison is not None:
        lines.append(f"| prior only | {figures(comparison, 'prior')} |")
        lines.append(f"| floor | {figures(comparison, 'floor')} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
