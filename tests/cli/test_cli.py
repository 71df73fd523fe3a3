"""The program as a user meets it: help, exit statuses, one sentence per error."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.conftest import SMALL_SCHNET

PROGRAM = [sys.executable, "-c", "from ase_cg.cli.main import main; main()"]


def call(*arguments: object, folder=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=folder, check=False
    )


def test_help_lists_every_command_in_less_than_a_second():
    def timed() -> tuple[float, str]:
        started = time.perf_counter()
        done = call("--help")
        assert done.returncode == 0
        return time.perf_counter() - started, done.stdout

    times, texts = zip(*[timed() for _ in range(3)], strict=True)
    assert min(times) < 1.0
    for command in (
        "map",
        "label-forces",
        "fit-priors",
        "import-torchmdnet",
        "train",
        "simulate",
        "analyze",
        "backmap",
        "run",
        "info",
    ):
        assert command in texts[0]
        assert call(command, "--help").returncode == 0


def test_version():
    assert call("--version").stdout.startswith("ase-cg 0.")


def test_the_line_step_by_step(dataset_file, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "r",
                "data": {"dataset": str(dataset_file)},
                "backbone": {"name": "schnet", **SMALL_SCHNET},
                "training": {"epochs": 1},
            }
        )
    )
    steps = [
        "train r.yaml -o t --quiet",
        "simulate t/model.safetensors -o s -s dataset.h5 -n 2 --duration '0.2 ps' --report-interval '0.02 ps' --quiet",
        "simulate t/model.safetensors -o one -s dataset.h5 --duration '0.2 ps' --report-interval '0.02 ps' --quiet",
        "analyze s -r dataset.h5 -o a --quiet",
        "info t/model.safetensors --json",
        "info dataset.h5 --json",
        "info dataset.h5",
        "info t",
        "info s",
    ]
    outputs = []
    for step in steps:
        done = call(*shlex.split(step), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        outputs.append(done.stdout)
    assert "Jensen" in outputs[3]
    assert json.loads(outputs[4])["backbone"] == "schnet"
    assert json.loads(outputs[5])["molecules"]["ala2"]["frames"] == 240
    assert "6 beads" in outputs[6]
    assert "240 frames in 2 trajectories at 300 K" in outputs[6]
    assert outputs[7].startswith("training r, finished: 1 of 1 epochs, labels atomistic\n")
    assert "trajectories of 0.2 ps" in outputs[8]


def test_progress_goes_to_the_log_without_quiet(dataset_file, tmp_path, model_file):
    step = "simulate model.safetensors -o s -s dataset.h5 -n 2 --duration '0.02 ps' --report-interval '0.01 ps'"
    done = call(*shlex.split(step), folder=tmp_path)
    assert done.returncode == 0
    assert "Simulating 2 replicas: done" in done.stderr


@pytest.fixture
def files(tmp_path, dataset_file, model_file):
    (tmp_path / "typo.yaml").write_text("name: x\ndata: {dataset: dataset.h5}\ntrainning: {}\n")
    (tmp_path / "broken.safetensors").write_bytes(model_file.read_bytes()[:500])
    (tmp_path / "text.h5").write_text("not a dataset")
    (tmp_path / "few.yaml").write_text("name: x\ndata: {dataset: dataset.h5}\ntraining: {blocks: 9999}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train typo.yaml -o out", "did you mean 'training'"),
        ("train none.yaml -o out", "recipe none.yaml does not exist"),
        ("train few.yaml -o out", "too few to split"),
        ("simulate broken.safetensors -o out -s dataset.h5", "truncated"),
        ("simulate dataset.h5 -o out -s dataset.h5", "model files end in .safetensors"),
        ("simulate model.safetensors -o out -s none.pdb", "does not exist"),
        ("simulate model.safetensors -o out -s dataset.h5 --device cuda:40", "GPUs here"),
        ("simulate model.safetensors -o out -s dataset.h5 --duration 5", "not a time with its unit"),
        ("analyze nowhere -r dataset.h5 -o out", "holds no simulation"),
        ("analyze nowhere -r text.h5 -o out", "no HDF5 file or is truncated"),
        ("map none.xtc -o out.h5 -t none.pdb --temperature 300", "does not exist"),
        ("map text.h5 -o out.h5 -t text.h5 --temperature 300", "text.h5"),
        ("info text.h5", "no HDF5 file"),
        ("simulate model.safetensors -o text.h5/x -s dataset.h5", "text.h5"),
        ("train typo.yaml -o text.h5", "did you mean"),
        ("analyze nowhere -r dataset.h5 -o text.h5/x", "holds no simulation"),
        ("map dataset.h5 -o . -t model.safetensors --temperature 300", "is a folder; name a file"),
        ("run typo.yaml -f out", "did you mean 'training'"),
    ],
)
def test_bad_input_is_one_sentence_status_2_and_nothing_left(files, arguments, words):
    before = sorted(path.name for path in files.iterdir())
    done = call(*arguments.split(), folder=files)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.startswith("ase-cg: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in files.iterdir()) == before


def test_an_unknown_option_is_status_2():
    done = call("map", "--no-such-option")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_an_explosion_is_status_1(files):
    command = "simulate model.safetensors -o s -s dataset.h5 -n 2 --time-step 100fs --report-interval 10ps -q"
    done = call(*command.split(), folder=files)
    assert done.returncode == 1
    assert "the simulation left the model's range: 2 of 2 replicas exploded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "underway", "result"),
    [
        (
            "simulate model.safetensors -o s -s dataset.h5 -n 2 --duration 4ps --report-interval 0.02ps -q",
            "s/segments/0/checkpoint.safetensors",
            "s/replica_001.h5",
        ),
        ("train long.yaml -o t -q", "t/checkpoints/last.ckpt", "t/model.safetensors"),
    ],
)
def test_what_the_user_stops_says_so_and_goes_on(files, command, underway, result):
    (files / "long.yaml").write_text("name: x\ndata: {dataset: dataset.h5}\ntraining: {epochs: 4}\n")
    process = subprocess.Popen(
        [*PROGRAM, *command.split()],
        cwd=files,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    deadline = time.monotonic() + 90
    while not (files / underway).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=90)
    assert process.returncode == 130
    told = r"ase-cg: stopped; the same command goes on where it can"
    if command.startswith("simulate"):
        told = r"ase-cg: stopped after \d+ of 200 frames, all of which are kept; the same command with --resume"
    assert re.match(told, messages)
    assert messages.count("\n") == 1
    assert not (files / result).exists()
    done = call(*command.split(), *(["--resume"] if command.startswith("simulate") else []), folder=files)
    assert done.returncode == 0, done.stderr
    assert (files / result).is_file()


def test_a_warning_is_one_line(files):
    command = "simulate model.safetensors -o s -s dataset.h5 -n 2 --duration 0.2ps --temperature 350 -q"
    done = call(*command.split(), folder=files)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("ase-cg: warning: simulating at 350 K a model that is a free energy at 300 K")
