"""Seeds: each of 64 bits is another, none is rounded, and what is no seed is refused."""

import json

import numpy as np
import pytest
import torch
import yaml

from ase_cg import ReplicaSimulation, simulate
from ase_cg.dynamics.noise import NoiseBlocks, generator, random_key
from ase_cg.errors import InputError
from ase_cg.seeds import checked_seed, torch_seed
from ase_cg.training.recipe import Recipe

# Neighbours that are one number in double precision, 32 bits that are equal, and the ends.
ALIKE = [2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3, 1, 1 + 2**32, 1 + 2**33, 2**62 + 1, 2**63, 2**64 - 2, 2**64 - 1, 0]
NOISE = {"name": "t", "data": {"dataset": "d.h5"}, "labels": "noise", "noise_std": 0.1}
WRONG = [-1, 2**64, 1.0, 9007199254740993.0, "3", True, None, float("nan")]


def test_every_seed_and_replica_number_has_a_stream_of_its_own():
    keys = {tuple(random_key(seed, number)) for seed in ALIKE for number in (0, 1, 2, 2**40)}
    assert len(keys) == 4 * len(ALIKE)
    # Of one seed's second replica and the next seed's first one.
    streams = NoiseBlocks([random_key(7, 1), random_key(8, 0), random_key(7, 0)], 100, torch.device("cpu")).steps(0, 40)
    numbers = torch.stack(list(streams)).permute(1, 0, 2, 3).reshape(3, -1).numpy()
    assert np.abs(np.corrcoef(numbers) - np.eye(3)).max() < 5 / np.sqrt(numbers.shape[1])
    firsts = {float(generator(random_key(seed), "starts").random()) for seed in ALIKE}
    assert len(firsts) == len(ALIKE)


@pytest.mark.parametrize("kind", [list, lambda seeds: np.array(seeds, dtype=np.uint64)])
def test_simulations_of_neighbouring_large_seeds_differ(dimer_model, kind):
    start = np.array([[[0.0, 0, 0], [3.0, 0, 0]]])
    options = {"time_step": 0.1, "friction": 0.1}

    def after(seed, copies=1):
        run = ReplicaSimulation(dimer_model, start.repeat(copies, 0), seed=seed, **options)
        run.step(5)
        return run.positions

    alone = [after(seed)[0] for seed in ALIKE]
    for first, one in enumerate(alone):
        assert all(np.abs(one - other).max() > 1e-6 for other in alone[first + 1 :])
    # One seed for each replica: each as if it ran alone, mixed sizes and all.
    assert np.allclose(after(kind(ALIKE), len(ALIKE)), alone, rtol=0, atol=1e-6)


def test_initial_weights_and_recipes_tell_large_seeds_apart():
    drawn = [float(torch.rand(1, generator=torch.Generator().manual_seed(torch_seed(seed)))) for seed in ALIKE]
    assert len(set(drawn)) == len(ALIKE)
    assert [torch_seed(seed) for seed in (0, 5, 2**32 - 1)] == [0, 5, 2**32 - 1]  # those of earlier versions
    text = yaml.safe_dump({"seed": 2**53 + 1, "seeds": [2**53, 2**53 + 1, 2**64 - 1]})
    training = Recipe.model_validate(NOISE | {"training": yaml.safe_load(text)}).training
    assert training.seed == 2**53 + 1
    assert training.network_seeds == (2**53, 2**53 + 1, 2**64 - 1)
    assert json.loads(json.dumps(training.model_dump(mode="json")))["seeds"] == [2**53, 2**53 + 1, 2**64 - 1]


def test_two_trainings_of_large_seeds_differ(dataset_file, tmp_path):
    import warnings

    from ase_cg import CGModel, train

    def weights(seed):
        recipe = Recipe.model_validate(
            NOISE
            | {
                "data": {"dataset": str(dataset_file)},
                "priors": ["bonds"],
                "backbone": {"name": "schnet", "features": 8, "n_filters": 8, "n_basis": 4, "head": [8]},
                "training": {"epochs": 1, "learning_rate": 1e-9, "final_learning_rate": 1e-9, "seed": seed},
            }
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(recipe, tmp_path / str(seed), quiet=True)
        kept = CGModel.load(tmp_path / str(seed) / "model.safetensors").backbone.state_dict()
        return torch.cat([tensor.flatten() for tensor in kept.values() if tensor.is_floating_point()])

    first, second = weights(3), weights(3 + 2**32)
    assert float((first - second).abs().max()) > 1e-2


def test_a_large_seed_is_kept_exactly_and_the_run_is_resumed_with_it(model_file, dataset_file, tmp_path):
    seed = 2**53 + 1
    options = {"start": dataset_file, "report_interval": "0.02 ps", "quiet": True}
    folder = simulate(model_file, tmp_path / "s", seed=seed, duration="0.04 ps", **options)
    assert json.loads((folder / "simulation.json").read_text())["seed"] == seed
    simulate(model_file, folder, seed=seed, duration="0.06 ps", resume=True, **options)
    with pytest.raises(InputError, match=f"another seed \\({seed}\\)"):
        simulate(model_file, folder, seed=seed - 1, duration="0.06 ps", resume=True, **options)


@pytest.mark.parametrize("seed", WRONG)
def test_what_is_no_seed_is_refused_wherever_it_is_given(seed, dimer_model, model_file, dataset_file, tmp_path):
    start = np.array([[[0.0, 0, 0], [3.0, 0, 0]]])
    message = "a seed is a whole number"
    with pytest.raises(InputError, match=message):
        checked_seed(seed)
    with pytest.raises(InputError, match=message):
        random_key(seed)
    with pytest.raises(InputError, match=message):
        ReplicaSimulation(dimer_model, start, time_step=0.1, friction=0.1, seed=seed)
    with pytest.raises(InputError, match=message):
        ReplicaSimulation(dimer_model, start.repeat(2, 0), time_step=0.1, friction=0.1, seed=[0, seed])
    with pytest.raises(InputError, match=message):
        simulate(model_file, tmp_path / "s", start=dataset_file, seed=seed, duration="0.2 ps", quiet=True)
    assert not (tmp_path / "s").exists()
    for section in ({"seed": seed}, {"validation_simulation": {"seed": seed}}):
        with pytest.raises(ValueError, match=message):
            Recipe.model_validate(NOISE | {"training": section})
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(NOISE | {"simulation": {"seed": seed}})


def test_seeds_of_another_number_than_replicas_are_refused(dimer_model):
    start = np.array([[[0.0, 0, 0], [3.0, 0, 0]]]).repeat(3, 0)
    with pytest.raises(InputError, match="seed must be one number or one for each of 3 replicas"):
        ReplicaSimulation(dimer_model, start, time_step=0.1, friction=0.1, seed=[1, 2])
