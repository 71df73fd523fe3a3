"""What a comparison of a published size costs, and that the benchmark of the costs can fail."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("analysis_benchmark", ROOT / "benchmarks" / "analysis.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_published_set_takes_less_than_a_minute_and_2_gb(benchmark, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "DATA", shared)
    options = benchmark.published(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", benchmark.RUN, json.dumps(options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cpu_seconds"] < 60  # the wall time is that of the machine's other work, too
    assert found["memory_GB"] < 2
    frames = json.loads((tmp_path / "published" / "metrics.json").read_text())["frames"]
    assert frames == {"reference": 18_689, "model": 2000}


def test_the_benchmark_says_what_is_too_slow_too_large_or_not_linear(benchmark):
    def row(cpu, seconds=30.0, memory=0.5):
        return {"seconds": seconds, "cpu_seconds": cpu, "memory_GB": memory}

    linear = {benchmark.made_name(100, n): row(10 + n / 2500) for n in (50_000, 100_000, 200_000)}
    assert benchmark.broken({benchmark.PUBLISHED: row(7)} | linear) == []
    assert "took 61 s" in benchmark.broken({benchmark.PUBLISHED: row(7, 61.0)})[0]
    assert "2.10 GB" in benchmark.broken({benchmark.PUBLISHED: row(7, memory=2.1)})[0]
    squared = {benchmark.made_name(100, n): row((n / 1e4) ** 2) for n in (50_000, 100_000, 200_000)}
    assert "faster than the frames" in benchmark.broken(squared)[0]
