"""Kill a simulation at every call that writes, renames or removes a file, resume it, and compare it with a whole one.

    python benchmarks/kill_points.py [--every 1]

Each point is a process of its own that ends itself without a word (SIGKILL) at the k-th such call inside its folder.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.chmod", "os.truncate", "os.link"}
OPTIONS = {
    "replicas": 2,
    "duration": "0.4 ps",
    "report_interval": "0.02 ps",
    "checkpoint_interval": "0.1 ps",
    "seed": 3,
}


def run(folder: Path, *, resume: bool) -> None:
    """Run, or go on with, the simulation."""
    from ase_cg import simulate

    model = "ala2_painn"
    simulate(model, folder, start="ala2_extended", prior_only=True, resume=resume, quiet=True, **OPTIONS)


def killed_at(folder: Path, number: int) -> None:
    """Run until the call of this number, and end there; 0 counts the calls, into a file beside the folder."""
    calls = 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal calls
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in EVENTS or writes) and str(folder) in str(arguments[0]):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    run(folder, resume=False)
    folder.with_suffix(".calls").write_text(str(calls))


def in_a_child(folder: Path, number: int | None) -> None:
    """Run in a forked process, killed at a call, or resumed where there is no number."""
    child = os.fork()
    if child == 0:
        try:
            killed_at(folder, number) if number is not None else run(folder, resume=True)
        except BaseException as error:  # noqa: BLE001 - a child says what it is, and ends
            print(f"{folder.name}: {error}")
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(child, 0)


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return every array of every trajectory."""
    found = {}
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path, "r") as file:
            found |= {f"{path.name}/{name}": np.array(file[name]) for name in file}
    return found


def main() -> int:
    """Try the points, and say how many lost something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="try each so-many-th point only")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="ase-cg-kill-points-"))

    import ase_cg.dynamics.run  # noqa: F401 - imported once, for all children

    in_a_child(place / "whole", 0)
    total = int((place / "whole.calls").read_text())
    whole, lost, tried = arrays(place / "whole"), [], 0
    for number in range(1, total + 1, given.every):
        folder = place / f"{number:04d}"
        in_a_child(folder, number)
        tried += 1
        in_a_child(folder, None)
        found = arrays(folder)
        if found.keys() != whole.keys() or any(not np.array_equal(found[name], whole[name]) for name in whole):
            lost.append(number)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{tried} of {total} points tried; the run did not resume to the whole one at {len(lost)}: {lost}")
    shutil.rmtree(place)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
