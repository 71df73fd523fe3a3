"""Compiled models: their gate, their cache, whole steps, chunks, and machines without a compiler."""

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor
from typer.testing import CliRunner

from ase_cg.cli.main import app
from ase_cg.dynamics.integrators import make_integrator
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.errors import InputError
from ase_cg.files import file_hash
from ase_cg.inference import cache, compiled, export, packages
from ase_cg.inference.compiled import compile_model, model_hash
from ase_cg.models.backbones.near import near_pairs
from ase_cg.models.base import Backbone
from ase_cg.models.model import CGModel
from tests.inference.conftest import chain, chain_model
from tests.inference.test_dense import exact, relative


@dataclass(frozen=True)
class Leap:
    """A step that uses all it is given; each replica has a gain of its own."""

    time_step: float
    masses: Tensor
    gain: Tensor

    def advance(self, x, v, f, noise, energy_and_forces):
        v = v + self.time_step * f / self.masses
        moved = x + self.time_step * v + self.gain * noise
        energies, forces = energy_and_forces(moved)
        return moved, v + 1e-3 * forces, forces, energies


def leap(replicas: int, n_beads: int) -> Leap:
    gain = 1e-3 * torch.arange(1, replicas + 1).double()[:, None, None]
    return Leap(0.01, torch.full((n_beads, 1), 50.0).double(), gain)


@pytest.mark.parametrize("name", ["schnet", "painn", "mace"])
def test_a_compiled_model_is_the_model_and_is_kept(name, capsys):
    small = {"num_interactions": 1, "max_ell": 1} if name == "mace" else {"n_interactions": 1}
    model, frames = chain_model(name, 5, small, priors=("bonds", "dihedrals") if name == "schnet" else ("bonds",))
    made = model.compile(replicas=3, frames=frames[:5])
    assert made.form == "compiled"
    assert made.force_error < 1e-5
    energy, forces = exact(model, frames[20:23])
    found, compiled_forces = made.energy_and_forces(torch.tensor(frames[20:23]))
    assert relative(compiled_forces, forces) < 1e-5
    assert torch.allclose(found, energy, rtol=1e-5, atol=1e-5)
    # Closer than the check went, the model itself is evaluated: for the second replica only.
    close = frames[20:23].copy()
    close[1, 4] = close[1, 0] + [0.0, 0.03, 0.0]
    with pytest.warns(UserWarning, match="two beads came within 0.03 Å"):
        _, near = made.energy_and_forces(torch.tensor(close))
    assert relative(near[1], exact(model, close)[1][1]) < 1e-5
    assert torch.equal(near[[0, 2]], compiled_forces[[0, 2]])
    assert "Compiling" in capsys.readouterr().err
    again = model.compile(replicas=3, frames=frames[:5])
    assert "Compiling" not in capsys.readouterr().err
    assert torch.equal(again.energy_and_forces(torch.tensor(frames[20:23]))[1], compiled_forces)


def test_whole_steps_and_chunks(monkeypatch):
    """Five replicas in chunks of two: each as if it ran alone, and the compiled step equal to its parts."""
    monkeypatch.setattr(compiled, "MAX_CHUNK", 2)
    model, frames = chain_model("schnet", 5, {"n_interactions": 1}, priors=("bonds", "repulsion"))
    made = model.compile(replicas=5, quiet=True)
    assert made.chunk == 2
    x, v = torch.tensor(frames[:5]), 0.01 * torch.randn(5, 5, 3).double()
    noise = torch.randn(5, 5, 3).double()
    energies, forces = made.energy_and_forces(x)
    integrator = leap(5, 5)
    stepped = made.make_step(integrator, quiet=True)(x, v, forces, noise)
    parts = integrator.advance(x, v, forces, noise, made.energy_and_forces)
    for found, expected in zip(stepped, parts, strict=True):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert energies.shape == stepped[3].shape == (5,)
    # A step that brings beads together is redone with the model itself.
    close = x.clone()
    close[3, 4] = close[3, 0] + 0.02
    with pytest.warns(UserWarning, match="came within"):
        stepped = made.make_step(integrator, quiet=True)(close, 0 * v, 0 * forces, 0 * noise)
    parts = integrator.advance(close, 0 * v, 0 * forces, 0 * noise, made.energy_and_forces)
    for found, expected in zip(stepped, parts, strict=True):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert relative(stepped[2][3], exact(model, stepped[0].numpy())[1][3]) < 1e-5
    # Another temperature, another time step: the same code with other numbers.
    faster = Leap(0.02, integrator.masses, 2 * integrator.gain)
    monkeypatch.setattr(packages, "write_package", pytest.fail)
    moved = made.make_step(faster, quiet=True)(x, v, forces, noise)[0]
    assert torch.allclose(moved, faster.advance(x, v, forces, noise, made.energy_and_forces)[0], rtol=1e-12, atol=1e-12)
    alone = made.energy_and_forces(x[[4, 0, 0, 0, 0]])[1][0]
    assert torch.allclose(alone, forces[4], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:no C")
@pytest.mark.parametrize("name", ["langevin", "overdamped", "verlet"])
def test_every_integrator_steps_as_it_does_alone(monkeypatch, name):
    """Its numbers packed into one tensor, the step traced into a graph; in chunks, with a temperature each."""
    monkeypatch.setattr(compiled, "has_compiler", lambda: False)
    monkeypatch.setattr(compiled, "MAX_CHUNK", 2)
    model, frames = chain_model("painn", 5, priors=("bonds",))
    made = model.compile(replicas=3)
    kT = 0.02 * torch.arange(1, 4).double()[:, None, None]
    integrator = make_integrator(name, 0.1, torch.full((5, 1), 50.0).double(), kT, 0.05 * torch.ones_like(kT))
    x = torch.tensor(frames[:3])
    inputs = (x, 0.01 * torch.randn_like(x), made.energy_and_forces(x)[1], torch.randn_like(x))
    expected = integrator.advance(*inputs, made.energy_and_forces)
    for found, one in zip(made.make_step(integrator)(*inputs), expected, strict=True):
        assert torch.allclose(found, one, rtol=1e-12, atol=1e-14)
    parameters = compiled.Parameters(integrator, 3, torch.device("cpu"))

    def step(x, v, f, noise, numbers):
        return parameters.restored(numbers, 2).advance(x, v, f, noise, made.chunk_function)

    part = [tensor[:2] for tensor in inputs]
    graph = export.traced(step, [*(tensor.clone() for tensor in part), parameters.packed(0, 2)])
    assert torch.allclose(graph(*part, parameters.packed(0, 2))[0], expected[0][:2], rtol=1e-12, atol=1e-14)


def test_a_machine_without_a_compiler_says_so_and_goes_on(monkeypatch):
    monkeypatch.setattr(compiled, "has_compiler", lambda: False)
    model, frames = chain_model("painn", 5)
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler was found"):
        made = model.compile(frames=frames[:2])
    assert made.form == "eager"
    assert relative(made.energy_and_forces(torch.tensor(frames[3:4]))[1], exact(model, frames[3:4])[1]) < 1e-5
    integrator = leap(1, 5)
    x = torch.tensor(frames[:1])
    step = made.make_step(integrator)
    assert step(x, x, x, x)[0].shape == (1, 5, 3)
    for wrong in (x[:, :4], x.float(), torch.cat([x, x])):
        with pytest.raises(InputError, match=r"noise must be a double-precision tensor of shape \(1, 5, 3\)"):
            step(x, x, x, wrong)


def test_a_compiler_that_fails_is_told_and_done_without(tmp_path, monkeypatch):
    """It says its version, as one without a linker or headers does."""
    script = tmp_path / "broken"
    script.write_text('#!/bin/sh\ncase "$*" in *--version*) echo 12.0 ;; *) echo "no linker" >&2; exit 1 ;; esac\n')
    script.chmod(0o700)
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path / "cache"))
    model, frames = chain_model(None, 5, priors=("bonds",))
    told = r"C\+\+ compiler fails \(.*no linker.*\), so PyTorch evaluates"
    with inductor.patch({"cpp.cxx": (None, str(script))}), pytest.warns(UserWarning, match=told) as notices:
        made = model.compile(frames=frames[:2], quiet=True)
    assert len(notices) == 1
    assert made.form == "eager"
    assert made.force_error < 1e-5
    assert cache.cached_size() == (0, 0)
    # The evaluation is there from an earlier day, the step is not.
    made.form = "compiled"
    x = torch.tensor(frames[:1])
    with inductor.patch({"cpp.cxx": (None, str(script))}), pytest.warns(UserWarning, match="PyTorch steps operation"):
        step = made.make_step(leap(1, 5), quiet=True)
    expected = leap(1, 5).advance(x, x, x, x, made.energy_and_forces)
    assert torch.allclose(step(x, x, x, x)[0], expected[0], rtol=1e-12, atol=1e-12)


def test_a_replayed_capture_is_the_function():
    """What a GPU does, with the capture replaced by running the function on the same memory."""
    model, frames = chain_model("painn", 5)
    dense = compile_without_package(model, frames).energy_and_forces

    def capture(run):
        run()
        return run

    first, second = torch.tensor(frames[:1]), torch.tensor(frames[1:2])
    replay = export.Replay(export.traced(dense, [first]), [first], capture)
    results = [replay(x) for x in (first, second)]
    for x, found in zip((first, second), results, strict=True):
        for one, other in zip(found, dense(x), strict=True):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


class Springs(Backbone):
    """Somebody else's network, without a dense form: it sees near pairs only."""

    def __init__(self, n_types: int, *, cutoff: float = 9.0) -> None:
        super().__init__(cutoff, {"cutoff": cutoff})
        self.strength = torch.nn.Parameter(torch.linspace(0.1, 0.5, n_types))

    def bead_energies(self, graph):
        graph = near_pairs(graph, self.cutoff)
        i = graph.edges[0]
        squared = (graph.edge_vectors() ** 2).sum(-1)
        energy = self.strength[graph.bead_type[i]] * (1 - squared / self.cutoff**2).clamp_min(0) ** 3
        return torch.zeros_like(graph.positions[:, 0]).index_add(0, i, energy)


def test_a_network_without_a_dense_form_is_traced_as_it_is():
    model, frames = chain_model("schnet", 14, priors=("bonds",))
    other = CGModel(model.vocabulary, model.priors, model.card, backbone=Springs(4), backbone_name="springs")
    dense = compile_without_package(other, frames).energy_and_forces
    graph = export.traced(dense, [torch.zeros(1, 14, 3).double()])  # an example with all beads on one spot
    for x in torch.tensor(frames[:3]):
        assert relative(graph(x[None])[1], exact(other, x[None].numpy())[1]) < 1e-12


def compile_without_package(model, frames):
    from ase_cg.inference.dense import DenseModel

    return DenseModel(model, model.only_topology(), 1, torch.float64, 128)


def test_the_gate_refuses_and_names_the_error(monkeypatch):
    monkeypatch.setattr(compiled, "INTERVALS", (4,))
    model, frames = chain_model("schnet", 5)
    with pytest.raises(InputError, match=r"differ from the model's by .* above the gate of 1.0e-05"):
        model.compile(frames=frames[:2])


def test_bad_input_is_one_sentence():
    model, frames = chain_model("schnet", 5)
    for options, message in (
        ({"replicas": 0}, "replicas must be at least 1"),
        ({"dtype": "float16"}, "unknown dtype"),
        ({"gate": 0.0}, "gate must be"),
        ({"frames": frames[:, :3]}, "do not fit"),
        ({"frames": np.full((1, 5, 3), np.nan)}, "no numbers"),
        ({"device": "tpu"}, "tpu"),
    ):
        with pytest.raises(InputError, match=message):
            model.compile(**options)
    del_frames = type(model)(model.vocabulary, model.priors, model.card)
    with pytest.raises(InputError, match="holds no frames"):
        del_frames.compile()
    large = chain(1001, frames=1)[0]
    with pytest.raises(InputError, match="too large to be compiled"):
        compile_model(model, large)


def test_the_key_of_a_package_knows_weights_and_priors():
    model, _ = chain_model("schnet", 5)
    before = model_hash(model)
    assert before == model_hash(chain_model("schnet", 5)[0])
    model.backbone.head[0].bias.data[0] += 1e-6
    assert model_hash(model) != before
    other, _ = chain_model("schnet", 5, priors=("bonds", "angles", "repulsion"))
    assert model_hash(other) != before
    assert cache.make_key(a=1) != cache.make_key(a=2)


def test_frames_are_kept_in_the_model_file(tmp_path):
    model, frames = chain_model("schnet", 5)
    model.save(tmp_path / "model.safetensors")
    loaded = type(model).load(tmp_path / "model.safetensors")
    assert np.allclose(loaded.frames_of(loaded.only_topology()), frames[:8], atol=1e-5)
    assert loaded.prior_only().frames_of(loaded.only_topology()) is not None
    assert loaded.frames_of(chain(6, frames=1)[0]) is None


def test_the_cache_is_limited_and_cleared(tmp_path, monkeypatch):
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    keys = [f"{number:032x}" for number in range(3)]
    for number, key in enumerate(keys):
        place = cache.entry(key)
        assert place.read() is None
        place.package.write_bytes(b"x" * 1000)
        place.write({"number": number})
        os.utime(place.record, (number, number))
    assert cache.cached_size() == (3, 3000)
    assert cache.entry(keys[0]).read() == {"number": 0}  # used now, so it is the youngest
    cache.prune(2000)
    assert [cache.entry(key).read() is not None for key in keys] == [True, False, True]
    cache.entry(keys[2]).package.unlink()
    assert cache.entry(keys[2]).read() is None
    cache.entry(keys[0]).package.chmod(0o666)
    with pytest.raises(InputError, match="can be written by others"):
        cache.entry(keys[0]).read()
    for name in ("kept.txt", "mine.json", "mine.so", "mine.pt2"):
        (tmp_path / "cache" / name).write_text("not ours")
    for name, age in (("0" * 4, 7200), ("1" * 4, 10)):
        unfinished = tmp_path / "cache" / f".partial-{name * 8}.pt2"
        unfinished.touch()
        os.utime(unfinished, (time.time() - age,) * 2)
    result = CliRunner().invoke(app, ["cache"])
    assert result.output.startswith("1 packages, 0.0 MB, in")
    result = CliRunner().invoke(app, ["cache", "--clear"])
    assert result.output.startswith("1 packages, 0.0 MB, deleted from")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        f".partial-{'1' * 32}.pt2",
        "kept.txt",
        "mine.json",
        "mine.pt2",
        "mine.so",
    ]
    assert cache.cached_size() == (0, 0)


@pytest.mark.parametrize("name", ["langevin", "overdamped", "verlet"])
def test_the_steps_of_all_integrators_divide_into_chunks(monkeypatch, name):
    """Each replica at a temperature of its own; without the compiler, to be quick."""
    monkeypatch.setattr(compiled, "MAX_CHUNK", 2)
    monkeypatch.setattr(compiled, "has_compiler", lambda: False)
    model, frames = chain_model(None, 5, priors=("bonds",))
    with pytest.warns(UserWarning, match="compiler"):
        made = model.compile(replicas=5, quiet=True)
    kT = torch.linspace(0.01, 0.03, 5, dtype=torch.float64)[:, None, None]
    integrator = make_integrator(name, 0.2, torch.full((5, 1), 100.0).double(), kT, torch.full_like(kT, 0.01))
    x, v = torch.tensor(frames[:5]), 0.01 * torch.randn(5, 5, 3).double()
    noise, forces = torch.randn(5, 5, 3).double(), made.energy_and_forces(x)[1]
    stepped = made.make_step(integrator, quiet=True)(x, v, forces, noise)
    for found, expected in zip(stepped, integrator.advance(x, v, forces, noise, made.energy_and_forces), strict=True):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_positions_of_another_kind_are_refused_not_read_as_others(monkeypatch):
    monkeypatch.setattr(compiled, "has_compiler", lambda: False)
    model, frames = chain_model(None, 5, priors=("bonds",))
    with pytest.warns(UserWarning, match="compiler"):
        made = model.compile(replicas=3, quiet=True)
    x = torch.tensor(frames[:3])
    for wrong in (x[:2], x[:, :4], x.float(), x.numpy().astype("f4"), torch.cat([x, x])):
        with pytest.raises(InputError, match=r"double-precision tensor of shape \(3, 5, 3\)"):
            made.energy_and_forces(wrong)
    with pytest.raises(InputError, match=r"double-precision tensor of shape \(3, 5, 3\)"):
        made.energy_and_forces_of(frames[0])  # of one replica only
    with pytest.raises(InputError, match="compiled for 3 replicas and there are 2"):
        ReplicaSimulation(model, frames[:2], compiled=made, time_step=0.2, friction=0.01)


def test_one_process_compiles_and_others_wait_and_damaged_packages_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path / "cache"))
    written = []

    def write(function, examples, path):
        written.append(path)
        time.sleep(0.3)
        path.write_text("package")

    def read(path):
        if path.read_text() != "package":
            raise RuntimeError("Failed to initialize zip archive")
        return path

    monkeypatch.setattr(packages, "write_package", write)
    monkeypatch.setattr(packages, "read_package", read)

    def compile_one(_=None):
        key = {"model": "m", "dtype": "d"}
        return packages.compiled_function(abs, [], torch.device("cpu"), key, "it", quiet=True)

    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(compile_one, range(3)))
    assert len(written) == len(found) == 1
    package = found.pop()
    package.write_text("pack")
    assert compile_one().read_text() == "package"
    assert len(written) == 2
    # As it was written, but for another system: it is not to be loaded here.
    record = package.with_suffix(".json")
    record.write_text(record.read_text().replace(file_hash(package), hashlib.sha256(b"other").hexdigest()))
    package.write_text("other")
    assert compile_one().read_text() == "package"
    assert len(written) == 3
    assert cache.cached_size()[0] == 1
    assert [path.suffix for path in sorted(package.parent.iterdir()) if path.is_file()] == [".json", ".pt2"]


def test_packages_that_somebody_else_may_have_written_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path / "cache"))
    cache.make_folder(tmp_path / "cache")
    place = cache.entry("0" * 32)
    place.package.write_bytes(b"x")
    place.write({})
    assert place.read() == {}
    place.package.rename(tmp_path / "elsewhere.pt2")
    place.package.symlink_to(tmp_path / "elsewhere.pt2")
    with pytest.raises(InputError, match="is a link"):
        place.read()
    place.package.unlink()
    (tmp_path / "elsewhere.pt2").rename(place.package)
    (tmp_path / "cache").chmod(0o770)
    with pytest.raises(InputError, match="can be written by others"):
        place.read()
    with pytest.raises(InputError, match="can be written by others"), cache.compiler_folders():
        pass


COMPILE = """
import os, sys
import torch._dynamo.package  # makes that folder when it is imported, and sets the variable; it looks into neither
names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
before = [os.environ.get(name) for name in names]
touched = set()
def look(event, arguments):
    if event in {"open", "os.mkdir", "os.rename", "os.listdir", "os.scandir", "subprocess.Popen"}:
        touched.update(word for word in str(arguments).split("'") if "torchinductor_" in word)
sys.addaudithook(look)
from ase_cg.inference.packages import compiled_function
key = {"model": "none", "dtype": "float64"}
double = compiled_function(
    lambda x: (2 * x.sin(),), [torch.ones(64)], torch.device("cpu"), key, "a function", quiet=True
)
assert torch.equal(double(torch.zeros(64))[0], torch.zeros(64))
print(sorted(touched), [os.environ.get(name) for name in names] == before)
"""


def test_the_compiler_keeps_nothing_in_the_shared_temporary_folder(tmp_path):
    """Neither its libraries nor its precompiled headers; a trap is where it would look by default."""
    (tmp_path / "tmp").mkdir()
    environment = dict(os.environ) | {"ASE_CG_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        environment.pop(name, None)
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[] True"), done.stderr
    for part in ("", "inductor", "triton"):
        assert (tmp_path / "cache" / part).stat().st_mode & 0o777 == 0o700
    assert any((tmp_path / "cache" / "inductor").iterdir())


def test_a_folder_of_others_is_left_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(InputError, match="can be written by others"):
        cache.make_folder(tmp_path / "shared")
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o777
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        cache.make_folder(tmp_path / "file" / "cache")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="is a link"):
        cache.make_folder(tmp_path / "link")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(InputError, match="belongs to another user"):
        cache.make_folder(tmp_path / "real")
    monkeypatch.undo()
    monkeypatch.setenv("ASE_CG_CACHE", "here")
    assert cache.cache_folder() == Path.cwd() / "here"
    monkeypatch.setenv("ASE_CG_CACHE", "~/here")
    assert cache.cache_folder() == Path.home() / "here"
