"""A network that knows the noise against networks of one noise level: one training, several ways to simulate it.

    OMP_NUM_THREADS=1 python benchmarks/conditioned.py --folder runs/conditioned --effort quick

Trains on the published beads of the dipeptide with noise of a whole range, evaluates the same network at several noise
levels, and simulates it with priors of clean frames (sharpened) or of frames with that noise (plain). Networks of one
level beside it are those of ``data_efficiency.py`` and have the same folders. A result that is there is not made again.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from data_efficiency import PLAIN, SHARPENED, table
from study import Case, Study, variant_name
from systems import SYSTEMS

from ase_cg import Recipe, train
from ase_cg.training.data import read_training_data
from ase_cg.training.trainer import make_model, make_network


@dataclass(frozen=True)
class RangeCase(Case):
    """A network trained from `lowest` to `highest`, and evaluated at the case's `noise_std`, all in Å."""

    lowest: float
    highest: float

    @property
    def folder(self) -> Path:
        """Where this evaluation lies, in the folder of the network."""
        name = f"{self.fraction:g}_{self.labels}_{self.lowest:g}-{self.highest:g}_seed_{self.seed}"
        return Path(self.system) / name / f"at_{self.noise_std:g}"


class RangeStudy(Study):
    """Trains each range once, whatever it is evaluated at."""

    def train(self, case: Case) -> Path:
        """Return the model of a case, trained if it is not there."""
        if not isinstance(case, RangeCase):
            return super().train(case)
        place = self.folder / case.folder
        dataset = SYSTEMS[case.system].dataset(self.folder / case.system)
        SYSTEMS[case.system].one_basin(self.folder / case.system)
        recipe = self.recipe(replace(case, noise_std=None), dataset)
        recipe["noise_std"] = {"from": case.lowest, "to": case.highest}
        place.mkdir(parents=True, exist_ok=True)
        written = place.parent / "recipe.yaml"
        if not written.is_file():
            written.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        train(Recipe.read(written), place.parent / "training", quiet=True)
        return evaluated_at(case.noise_std, Recipe.read(written), place)


def evaluated_at(noise_std: float, recipe: Recipe, place: Path) -> Path:
    """Write the model of a trained range at another of its noise levels."""
    noise = recipe.noise_std.model_copy(update={"evaluate_at": noise_std})
    data = read_training_data(recipe.model_copy(update={"noise_std": noise}), recipe.data.dataset)
    kept = torch.load(place.parent / "training" / "checkpoints" / "best.ckpt", weights_only=True)
    network = make_network(recipe, len(data.vocabulary))
    start = "backbone."
    network.load_state_dict({k.removeprefix(start): v for k, v in kept["state_dict"].items() if k.startswith(start)})
    trained = json.loads((place.parent / "training" / "training.json").read_text())
    model = make_model(
        network, recipe.model_copy(update={"noise_std": noise}), data, {"metrics": {}, "training": trained["recipe"]}
    )
    model.save(place / "model.safetensors", overwrite=True)
    return place / "model.safetensors"


def all_rows(seeds: list[int]) -> list[tuple[Case, tuple[str, ...] | None]]:
    """Return cases and priors in the order in which they are made."""
    rows: list[tuple[Case, tuple[str, ...] | None]] = []
    for seed in seeds:
        common = ("dipeptide", 1, "forces_and_noise")
        rows += [(RangeCase(*common, at, seed, 0.02, 0.2), SHARPENED) for at in (0.02, 0.05)]
        rows += [(Case(*common, level, seed), SHARPENED) for level in (0.05, 0.02)]
        rows += [(RangeCase(*common, 0.02, seed, 0.02, 0.2), PLAIN)]
        rows += [(RangeCase(*common, 0.005, seed, 0.005, 0.1), priors) for priors in (PLAIN, SHARPENED)]
    return rows


def main() -> None:
    """Do what is missing, then show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/conditioned"))
    parser.add_argument("--effort", choices=("smoke", "quick", "standard"), default="standard")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, nargs="+", help="do only these, counted from 0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="show the table of what is done")
    arguments = parser.parse_args()
    study = RangeStudy(arguments.folder / arguments.effort, arguments.effort, arguments.device)
    rows = all_rows(arguments.seeds)
    for number, row in enumerate([] if arguments.table else rows):
        if arguments.rows is None or number in arguments.rows:
            print(f"{time.strftime('%H:%M:%S')} {row[0].folder}/{variant_name(*row)}", flush=True)
            study.run(*row)
    done = [(row, json.loads(study.result(*row).read_text())) for row in rows if study.result(*row).is_file()]
    for (case, _), found in done:
        if isinstance(case, RangeCase):
            found["labels"] = f"forces and noise, {case.lowest:g} to {case.highest:g} Å"
    text = table("dipeptide", [found for _, found in done]) if done else "nothing is done yet"
    (study.folder / "conditioned.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
