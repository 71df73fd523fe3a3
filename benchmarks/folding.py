"""Whether a chignolin model folds and unfolds: replicas that start folded and unfolded, against the weighted data.

    OMP_NUM_THREADS=1 python benchmarks/folding.py chignolin --folder runs/folding --duration "300 ps"

The published frames are adaptive sampling, and are weighted by a Markov model of their trajectories; the surface is
that of RMSD and radius of gyration. Half of the replicas start within 2 Å of the experimental structure, half beyond
5 Å. The second half of the run counts. A simulation that was stopped goes on with the same command.
"""

import argparse
from pathlib import Path

import numpy as np
from judgement import ONE_BASIN, judged
from systems import CHIGNOLIN

from ase_cg import analyze, simulate

FOLDED, UNFOLDED = 2.0, 5.0  # Å of RMSD from the experimental structure


def main() -> None:
    """Simulate, and print the shares and divergences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or file")
    parser.add_argument("--folder", type=Path, default=Path("runs/folding"))
    parser.add_argument("--replicas", type=int, default=48, help="from each kind of start")
    parser.add_argument("--duration", default="300 ps")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    reference = CHIGNOLIN.reference(arguments.folder)
    simulation = simulate(
        arguments.model,
        arguments.folder / Path(arguments.model).stem,
        start=starts(arguments.folder, reference),
        replicas=arguments.replicas,
        time_step=CHIGNOLIN.time_step,
        duration=arguments.duration,
        report_interval="1 ps",
        device=arguments.device,
        compile=not arguments.eager,
        resume=True,
    )
    options = {"bins": 30, "discard": 0.5, "lag": 0, "native": CHIGNOLIN.native, "surface": CHIGNOLIN.surface}
    comparison = analyze(simulation, reference, **options, quiet=True)
    report(judged(comparison, lambda frames: CHIGNOLIN.counted(frames, reference)))


def starts(folder: Path, reference: Path) -> list[Path]:
    """Return datasets of the folded and the unfolded frames."""
    x = np.load(CHIGNOLIN.folder / CHIGNOLIN.coordinates)
    rmsd = CHIGNOLIN.native_coordinates(x, reference)[:, 0]
    found = []
    for name, chosen in ((f"{ONE_BASIN}_folded", rmsd < FOLDED), ("unfolded", rmsd > UNFOLDED)):
        output = folder / f"{name}.h5"
        np.save(output.with_suffix(".npy"), x[chosen])
        found.append(CHIGNOLIN.map_beads(output, output.with_suffix(".npy"), []))
    return found


def report(found: dict) -> None:
    """Print what was found; of starts the reference of :func:`judged` are the unfolded ones."""
    share, apart = found["share"], found["starts"]
    print(f"replicas {found['replicas']}, of which stopped {found['replicas_stopped']}")
    for name, value in (("data", share["reference"]), ("model", share["model"])):
        print(f"within 2.5 Å, {name}: {value['value']:.3f} ± {value['standard_error']:.3f}")
    if "doubt" in apart:
        print(apart["doubt"])
    else:
        for name, key in (("folded", ONE_BASIN), ("unfolded", "reference")):
            value = apart[key]["share"]
            print(f"started {name}: {value['value']:.3f} ± {value['standard_error']:.3f}")
        low, high = apart["interval"] or (float("nan"), float("nan"))
        # Of starts the reference is the unfolded one: the sign is turned.
        print(f"folded minus unfolded: {-apart['difference']:+.3f} ({-high:+.3f} to {-low:+.3f}); {apart['verdict']}")
    for name, value in found["series_jensen_shannon_nats"].items():
        print(f"{name}: {interval_of(value)} nats; as sampled {value['plug_in']:.4f}, {at_floor(value)}")
    bonds, floor = (found[key]["bond_wasserstein_A"]["value"] for key in ("figures", "floor"))
    print(f"bonds: {bonds:.4f} Å, floor {floor:.4f}")


def interval_of(value: dict) -> str:
    """Return a divergence with its interval."""
    ends = value["interval"]
    return f"{value['value']:.4f} " + ("(no interval)" if ends is None else f"({ends[0]:.4f}–{ends[1]:.4f})")


def at_floor(value: dict) -> str:
    """Return what is compared with the floor, at as many independent frames."""
    own = "too few frames to compare with" if value["at_floor"] is None else f"{value['at_floor']:.4f} at the size of"
    return f"{own} the floor {value['floor']:.4f}"


if __name__ == "__main__":
    main()
