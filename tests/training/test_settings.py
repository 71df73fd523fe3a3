"""Settings of the training: each does what its name says, and wrong ones are told."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_cg import CGModel, InputError, Recipe, train
from ase_cg.analysis.describe import describe
from ase_cg.cli.show_info import show_info
from ase_cg.data.dataset import Dataset
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.splits import subset_frames
from ase_cg.errors import DivergenceError
from ase_cg.files import read_record
from ase_cg.models.backbones import make_backbone
from ase_cg.settings import validated
from ase_cg.training import trainer
from ase_cg.training.data import read_training_data
from ase_cg.training.provenance import describe_frames
from ase_cg.training.schedule import schedules
from ase_cg.training.training_settings import TrainingSection
from tests.conftest import SMALL_SCHNET, two_bead_topology


def _recipe(dataset, **changes) -> Recipe:
    training = {"epochs": 3, "batch_size": 32, "learning_rate": 3e-3, **changes.pop("training", {})}
    data = {"name": "test", "data": {"dataset": str(dataset)}, "training": training}
    return Recipe.model_validate(data | {"backbone": {"name": "schnet", **SMALL_SCHNET}} | changes)


def _logged(folder: Path, name: str) -> list[float]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def _backbone(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in CGModel.load(path).state_dict().items() if name.startswith("backbone")}


def _metrics(path: Path) -> dict:
    return CGModel.load(path).card.provenance["metrics"]


def _rates(steps: int, losses: list[float] | None = None, **settings) -> list[float]:
    """Learning rates of every step, or after every epoch of so many losses."""
    section = TrainingSection(learning_rate=1e-2, final_learning_rate=1e-4, **settings)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=section.learning_rate)
    made = schedules(optimizer, section, steps)
    rates = [optimizer.param_groups[0]["lr"]]
    for step in range(len(losses) if losses else steps):
        optimizer.step()
        for one in made:
            if one["interval"] == "step":
                one["scheduler"].step()
            elif losses:
                one["scheduler"].step(losses[step])
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_learning_rates_follow_the_schedule():
    t = np.arange(101) / 100
    assert _rates(100) == pytest.approx(1e-4 + (1e-2 - 1e-4) * (1 + np.cos(np.pi * t)) / 2)
    assert _rates(100, schedule="exponential") == pytest.approx(1e-2 * 1e-2**t)
    assert _rates(100, schedule="constant") == pytest.approx(np.full(101, 1e-2))
    falling = _rates(6, [5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0], schedule="plateau", plateau_patience=1)
    assert falling == pytest.approx([1e-2, 1e-2, 1e-2, 1e-2, 5e-3, 5e-3, 2.5e-3, 2.5e-3])


@pytest.mark.parametrize("schedule", ["cosine", "constant", "exponential", "plateau"])
def test_warm_up_begins_small_and_leads_into_the_schedule(schedule):
    rates = _rates(100, schedule=schedule, warmup_steps=10)
    assert rates[0] == pytest.approx(1e-5)
    assert (np.diff(rates[:11]) > 0).all()
    assert rates[10] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx({"cosine": 1e-4, "exponential": 1e-4}.get(schedule, 1e-2), rel=0.1)


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_averaged_weights_are_what_is_validated_and_saved(dataset_file, tmp_path, monkeypatch):
    """The saved weights are the exponential average of the weights after every step of the epochs before."""
    from ase_cg.training.objective import ForceMatching

    steps = []
    original = ForceMatching.optimizer_step

    def kept(self, *arguments, **options):
        original(self, *arguments, **options)
        steps.append({name: p.detach().clone() for name, p in self.backbone.named_parameters()})

    monkeypatch.setattr(ForceMatching, "optimizer_step", kept)
    folder = tmp_path / "t"
    model = train(_recipe(dataset_file, training={"ema_decay": 0.8}), folder, quiet=True)
    per_epoch = len(steps) // 3
    average = steps[0]
    for weights in steps[1 : per_epoch * (_metrics(model)["best_epoch"] + 1)]:
        average = {name: 0.8 * average[name] + 0.2 * tensor for name, tensor in weights.items()}
    saved = _backbone(model)
    for name, tensor in average.items():
        assert saved[f"backbone.{name}"].numpy() == pytest.approx(tensor.numpy(), abs=1e-6)
    far = max(float((saved[f"backbone.{name}"] - tensor).abs().max()) for name, tensor in steps[-1].items())
    assert far > 1e-4
    plain = train(_recipe(dataset_file), tmp_path / "p", quiet=True)
    assert _metrics(plain)["validation_loss"] != _metrics(model)["validation_loss"]


def test_a_warmup_longer_than_the_training_is_warned_of(dataset_file, tmp_path):
    settings = {"epochs": 2, "warmup_steps": 12, "fraction": 0.5}  # 96 frames: 3 steps an epoch
    with pytest.warns(UserWarning, match="warmup_steps is 12, and the whole training has 6 steps"):
        train(_recipe(dataset_file, training=settings), tmp_path / "t", quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(_recipe(dataset_file, training=settings | {"warmup_steps": 5}), tmp_path / "short", quiet=True)


def test_training_stops_when_patience_runs_out(dataset_file, tmp_path):
    # So small a rate that the loss no longer changes once it has fallen by rounding errors.
    settings = {"epochs": 60, "patience": 4, "learning_rate": 2e-2, "schedule": "constant"}
    folder = tmp_path / "t"
    metrics = _metrics(train(_recipe(dataset_file, training=settings), folder, quiet=True))
    losses = _logged(folder, "validation_loss")
    assert metrics["epochs"] == len(losses) < 60
    assert metrics["best_epoch"] == int(np.argmin(losses))
    assert len(losses) - 1 - int(np.argmin(losses)) == 4
    assert metrics["validation_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_label_variances_are_logged_and_agree(dataset_file, tmp_path):
    recipe = _recipe(dataset_file, labels="forces_and_noise", noise_std=0.05, training={"epochs": 6})
    metrics = _metrics(train(recipe, tmp_path / "t", quiet=True))
    measured = _logged(tmp_path / "t", "label_variance")
    assert len(measured) == 6
    assert len(set(measured)) == 6  # noise is fresh in every epoch
    # 192 frames of 18 components and 6 epochs of noise: about 2 %.
    assert np.mean(measured) == pytest.approx(metrics["label_variance_theory"], rel=0.06)


def test_several_seeds_and_noise_levels_are_trained_compared_and_kept(dataset_file, tmp_path):
    folder = tmp_path / "t"
    recipe = _recipe(
        dataset_file, labels="noise", noise_std=[0.1, 0.05], training={"epochs": 1, "seeds": [3, 1], "seed": 5}
    )
    chosen = train(recipe, folder, quiet=True)
    record = read_record(folder / "trainings.json")
    rows = record["trainings"]
    assert [(row["noise_std"], row["seed"]) for row in rows] == [(0.1, 3), (0.1, 1), (0.05, 3), (0.05, 1)]
    for row in rows:
        card = CGModel.load(folder / row["name"] / "model.safetensors").card
        assert card.noise_std == row["noise_std"]
        assert card.provenance["metrics"]["validation_loss"] == row["validation_loss"]
    best = min(rows[:2], key=lambda row: row["validation_loss"])
    assert record["chosen"] == best["name"]
    assert "first noise level" in record["rule"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            _backbone(chosen).values(), _backbone(folder / best["name"] / "model.safetensors").values(), strict=True
        )
    )
    table = (folder / "trainings.md").read_text().splitlines()
    assert len(table) == 8
    assert sum("chosen" in line for line in table) == 1
    # One of them is what a recipe of that seed and noise alone gives, on the same split.
    alone = train(recipe.only(0.05, 1), tmp_path / "alone", quiet=True)
    for one, two in zip(
        _backbone(alone).values(), _backbone(folder / rows[3]["name"] / "model.safetensors").values(), strict=True
    ):
        assert torch.equal(one, two)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    train(recipe, folder, quiet=True)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("labels", ["noise", "forces_and_noise"])
def test_networks_of_several_seeds_are_compared_with_the_same_noise(labels, dataset_file):
    recipe = _recipe(dataset_file, labels=labels, noise_std=0.1, training={"seeds": [3, 1], "seed": 5})
    data = read_training_data(recipe, dataset_file)
    network = make_backbone("schnet", len(data.vocabulary), recipe.backbone.hyper_parameters)
    found: dict[str, set[float]] = {"train": set(), "validation": set(), "test": set()}
    for seed in recipe.training.network_seeds:
        objective = trainer.ForceMatching(
            network,
            data.training_priors,
            trainer._labels(labels, data, 0.1),
            data.topologies,
            data.vocabulary,
            recipe.training,
            seed,
        )
        (batch,) = data.loader("validation", recipe.training.model_copy(update={"batch_size": 1000}), seed)
        steps = {"train": objective.training_step, "validation": objective.validation_step, "test": objective.test_step}
        for name, step in steps.items():
            step(batch, 1)
            found[name].add(float(objective.averages[f"{name}_loss"].compute()))
    assert {part: len(losses) for part, losses in found.items()} == {"train": 2, "validation": 1, "test": 1}


def test_a_training_that_is_discarded_leaves_nothing_behind(dataset_file, tmp_path, monkeypatch):
    """Neither its epochs nor its other networks; what is not a training's stays, and a stop and resume goes on."""
    folder = tmp_path / "t"
    train(_recipe(dataset_file, training={"seeds": [3, 1, 7]}), folder, quiet=True)
    (folder / "notes.txt").write_text("precious")
    recipe = _recipe(dataset_file, training={"epochs": 1, "seeds": [3, 1]})
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder, overwrite=True, quiet=True)
    assert {path.name for path in folder.iterdir() if path.is_dir()} <= {"seed_3"}
    train(recipe, folder, quiet=True)
    described = describe(folder)
    assert {name: network["epochs_done"] for name, network in described["networks"].items()} == {
        "seed_3": 1,
        "seed_1": 1,
    }
    # One network alone, in the place of several.
    train(_recipe(dataset_file, training={"epochs": 2}), folder, overwrite=True, quiet=True)
    assert describe(folder)["epochs_done"] == 2
    assert not (folder / "trainings.json").exists()
    assert not list(folder.glob("seed_*"))
    train(_recipe(dataset_file, training={"epochs": 1}), folder, overwrite=True, quiet=True)
    assert describe(folder)["epochs_done"] == 1
    assert (folder / "notes.txt").read_text() == "precious"


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_info_shows_the_progress_of_each_network_and_the_choice(dataset_file, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "t"
    recipe = _recipe(dataset_file, training={"epochs": 2, "seeds": [3, 1]})

    def stop(*arguments, **options):
        if arguments[0].training.seeds == [1]:
            raise KeyboardInterrupt
        return train_one(*arguments, **options)

    train_one = trainer._train_one
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_train_one", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder, quiet=True)
    described = describe(folder)
    assert not described["finished"]
    assert {name: network["epochs_done"] for name, network in described["networks"].items()} == {
        "seed_3": 2,
        "seed_1": 0,
    }
    show_info(described)
    first, one, other = capsys.readouterr().out.splitlines()
    assert first == "training test, not finished: 1 of 2 networks, labels atomistic"
    assert one.startswith("  seed_3, finished: 2 of 2 epochs, validation_loss ")
    assert other == "  seed_1, not finished: 0 of 2 epochs"

    train(recipe, folder, quiet=True)
    show_info(describe(folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training test, finished: 2 of 2 networks, labels atomistic"
    assert lines[2].startswith("  seed_1, finished: 2 of 2 epochs")
    chosen = read_record(folder / "trainings.json")["chosen"]
    assert lines[3].startswith(f"  chosen: {chosen} (lowest validation loss")
    assert len(lines) == 4


def test_of_several_networks_one_may_diverge(dataset_file, tmp_path, monkeypatch):
    """Seed 3 has a learning rate that no network survives; the first of the list does not count then."""
    fit, bad = trainer.fit, [3]

    def too_fast(objective, data, settings, *rest, **options):
        if settings.network_seeds[0] in bad:
            objective._settings = settings = settings.model_copy(update={"learning_rate": 1e30})
        return fit(objective, data, settings, *rest, **options)

    monkeypatch.setattr(trainer, "fit", too_fast)
    recipe = _recipe(dataset_file, training={"epochs": 1, "seeds": [3, 1, 2]})
    folder = tmp_path / "t"
    with pytest.warns(UserWarning, match="seed_3: training diverged"):
        chosen = train(recipe, folder, quiet=True)
    record = read_record(folder / "trainings.json")
    assert record["chosen"] in {"seed_1", "seed_2"}
    assert [set(row) >= {"validation_loss", "test_loss"} for row in record["trainings"]] == [False, True, True]
    assert [row.get("diverged") for row in record["trainings"]] == [True, None, None]
    lines = (folder / "trainings.md").read_text().splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:5] if line.split("|")[2].strip() == "3"] == ["diverged"]
    assert chosen.is_file()
    assert not (folder / "seed_3" / "model.safetensors").exists()

    bad += [1, 2]
    with (
        pytest.warns(UserWarning, match="training diverged"),
        pytest.raises(DivergenceError, match="all 3 trainings diverged"),
    ):
        train(recipe, tmp_path / "all", quiet=True)
    assert not (tmp_path / "all" / "trainings.json").exists()


@pytest.mark.filterwarnings("ignore:the prior")  # few frames have few samples
@pytest.mark.parametrize("kind", ["contiguous", "strided"])
def test_a_fraction_of_the_training_frames_is_recorded_and_leaves_validation_as_it_is(kind, dataset_file, tmp_path):
    parts = {}
    for fraction in (1.0, 0.5, 0.125):
        settings = {"fraction": fraction, "subset": kind, "epochs": 1}
        data = read_training_data(_recipe(dataset_file, training=settings), dataset_file)
        parts[fraction] = data.molecules[0].split
        assert len(parts[fraction].train) == round(fraction * 192)
    whole = parts[1.0]
    for split in parts.values():
        assert np.array_equal(split.validation, whole.validation)
        assert np.array_equal(split.test, whole.test)
    assert set(parts[0.125].train) < set(parts[0.5].train) < set(whole.train)
    expected = whole.train[:96] if kind == "contiguous" else whole.train[::2]
    assert np.array_equal(parts[0.5].train, expected)
    recipe = _recipe(dataset_file, training={"fraction": 0.125, "subset": kind, "epochs": 1})
    found = CGModel.load(train(recipe, tmp_path / "t", quiet=True)).card.provenance["train_frames"]["ala2"]
    frames = [np.arange(*(int(n) for n in run.split(":"))) for run in found["runs"]]
    assert np.array_equal(np.concatenate(frames), parts[0.125].train)
    assert found["count"] == 24


@pytest.mark.parametrize("memory_limit", [4.0, 1e-6])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_labels_are_fitted_to_the_training_frames_only(fraction, memory_limit, dataset_file):
    settings = {"fraction": fraction, "memory_limit": memory_limit}
    recipe = _recipe(dataset_file, labels="forces_and_noise", noise_std=0.05, training=settings)
    (found,) = read_training_data(recipe, dataset_file).molecules
    assert (found.coordinates is None) == (memory_limit < 1)
    with Dataset.open(dataset_file) as dataset:
        assert np.array_equal(found.label_forces, dataset.only_molecule().forces()[found.split.train])


def test_subsets_are_what_they_say_and_very_many_runs_become_a_hash():
    frames = np.arange(0, 3000, 3)
    assert np.array_equal(subset_frames(frames, 0.01, "contiguous"), frames[:10])
    assert np.array_equal(subset_frames(frames, 0.01, "strided"), frames[::100])
    assert len(subset_frames(frames, 1e-9, "strided")) == 1
    assert describe_frames(frames)["runs"] == ["0:2998:3"]
    random = np.sort(np.random.default_rng(0).choice(10**6, 5000, replace=False))
    assert describe_frames(random)["runs"] is None
    assert describe_frames(random)["sha256"] != describe_frames(random + 1)["sha256"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"schedule": "cosin"}}, "did you mean 'cosine'"),
        ({"training": {"emadecay": 0.9}}, "training.emadecay is no key .*; did you mean 'ema_decay'"),
        ({"training": {"ema_decay": 1.0}}, "training.ema_decay cannot be 1.0"),
        ({"training": {"select": "simulation"}}, "training needs 'validation_simulation'"),
        ({"training": {"validation_simulation": {"evry": 2}}}, "did you mean 'every'"),
        ({"training": {"validation_simulation": {"every": 50}}}, "has 40 epochs, .* every 50: never"),
        (
            {"training": {"validation_simulation": {"every": 5}, "select": "simulation", "patience": 4}},
            "give a longer 'patience'",
        ),
        (
            {"training": {"validation_simulation": {"friction": "-1 /ps"}}},
            "validation_simulation.friction cannot be '-1 /ps': it must be finite and not negative",
        ),
        (
            {"training": {"validation_simulation": {"pairs": []}}},
            r"validation_simulation.pairs cannot be \[\]: .*at least 1",
        ),
        (
            {"sharpened_priors": "bonds"},
            "sharpened_priors cannot be 'bonds': it must be true, false, or a list of names",
        ),
        ({"sharpened_priors": [1]}, r"sharpened_priors cannot be \[1\]: it must be true, false, or a list of names"),
        # Of a dataset that has another one, or of forces that were mapped otherwise.
        ({"data": {"dataset": "d.h5", "temperature": 350}}, "data has a dataset, .*'temperature' would have no effect"),
        ({"data": {"dataset": "d.h5", "force_map": "slice"}}, "data has a dataset, .*'force_map' would have no effect"),
        ({"training": {"seeds": [1, 1]}}, "each seed is listed once"),
        ({"training": {"seeds": [2**64]}}, "training.seeds.0 cannot be 18446744073709551616"),
        ({"training": {"seed": 2**64}}, "training.seed cannot be"),
        ({"training": {"seeds": []}}, "training.seeds"),
        ({"training": {"fraction": 0.0}}, "training.fraction cannot be 0.0"),
        ({"training": {"subset": "stride"}}, "did you mean 'strided'"),
        ({"noise_std": [0.05, 0.05]}, "each noise_std is listed once"),
        ({"noise_std": [0.05, 0.0500000001]}, "each noise_std is listed once"),
        ({"noise_std": True}, "noise_std cannot be True: .*positive standard deviation"),
        ({"noise_std": 1e-300}, "noise_std cannot be 1e-300: .*positive standard deviation"),
        ({"noise_std": []}, "positive standard deviation"),
        ({"noise_std": [0.05, -1]}, r"noise_std cannot be \[0.05, -1\]: .*positive standard deviation"),
        # Noise needs kT, and trajectories do not know their temperature.
        ({"data": {"trajectories": ["a.xtc"], "topology": "a.pdb"}}, "needs 'topology' and 'temperature'"),
    ],
)
def test_wrong_settings_are_named(change, message):
    good = {"name": "x", "data": {"dataset": "d.h5"}, "labels": "noise", "noise_std": 0.05}
    with pytest.raises(InputError, match=message) as error:
        validated(Recipe, good | change, "recipe r.yaml")
    assert "\n" not in str(error.value)


def _dataset(path: Path, x: np.ndarray, f: np.ndarray | None, **options) -> Path:
    made = {
        "temperature": 300.0,
        "resolution": ("ALA:A", "ALA:B"),
        "force_map": None if f is None else "slice",
    } | options
    with (
        create_dataset(path) as dataset,
        dataset.molecule("m", two_bead_topology(), **made) as molecule,
    ):
        molecule.append(x, f)
    return path


def test_forces_and_noise_without_forces_is_told(tmp_path):
    rng = np.random.default_rng(0)
    path = _dataset(tmp_path / "d.h5", np.array([[0, 0, 0], [0, 0, 3]]) + 0.1 * rng.standard_normal((100, 2, 3)), None)
    recipe = _recipe(path, labels="forces_and_noise", noise_std=0.05, priors=["bonds"])
    with pytest.raises(InputError, match="has no forces; map a trajectory with forces, or train on noise"):
        train(recipe, tmp_path / "t", quiet=True)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("noise_std", "message"), [(2.0, r"more than half .* 2\.[0-9]+ Å"), (5e-4, r"0\.0005 Å, below")]
)
def test_noise_in_the_wrong_unit_is_warned_of(noise_std, message, tmp_path):
    rng = np.random.default_rng(0)
    path = _dataset(tmp_path / "d.h5", np.array([[0, 0, 0], [0, 0, 3]]) + 0.1 * rng.standard_normal((100, 2, 3)), None)
    recipe = _recipe(path, labels="noise", noise_std=noise_std, priors=["bonds"], training={"epochs": 1})
    with pytest.warns(UserWarning, match=message):
        train(recipe, tmp_path / "t", quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = recipe.model_copy(update={"noise_std": 0.1})
        train(good, tmp_path / "good", quiet=True)


@pytest.mark.parametrize(
    ("what", "memory_limit"), [("coordinates", 4.0), ("coordinates", 1e-6), ("forces", 4.0), ("forces", 1e-6)]
)
def test_values_that_are_no_numbers_are_found_before_the_training(what, memory_limit, dataset_file, tmp_path):
    import h5py

    path = tmp_path / "d.h5"
    path.write_bytes(dataset_file.read_bytes())
    frame = int(read_training_data(_recipe(dataset_file), dataset_file).molecules[0].split.train[7])
    with h5py.File(path, "a") as file:
        file[f"molecules/ala2/{what}"][frame, 2, 1] = np.nan
    recipe = _recipe(path, training={"memory_limit": memory_limit})
    with pytest.raises(InputError, match=f"{what} of frame {frame} .* hold values that are no numbers"):
        train(recipe, tmp_path / "t", quiet=True)
    assert not (tmp_path / "t").exists()


def test_a_dataset_without_temperature_is_no_dataset(tmp_path):
    import h5py

    rng = np.random.default_rng(0)
    path = _dataset(tmp_path / "d.h5", np.array([[0, 0, 0], [0, 0, 3]]) + 0.1 * rng.standard_normal((100, 2, 3)), None)
    with h5py.File(path, "a") as file:
        del file["molecules/m"].attrs["temperature"]
    with pytest.raises(InputError, match="temperature"):
        train(_recipe(path, labels="noise", noise_std=0.1), tmp_path / "t", quiet=True)
