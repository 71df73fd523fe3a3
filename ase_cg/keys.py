"""Every array and attribute that ase-cg writes: its name, its shape and its unit, once.

``F`` frames, ``N`` beads, ``T`` trajectories, ``n`` atoms.
"""

from typing import NamedTuple


class ArrayKey(NamedTuple):
    """Name of an array, what its axes are, and its unit."""

    name: str
    shape: str
    unit: str


COORDINATES = ArrayKey("coordinates", "(F, N, 3)", "Å")
FORCES = ArrayKey("forces", "(F, N, 3)", "eV/Å")
WEIGHTS = ArrayKey("weights", "(F,)", "1")
WEIGHTS_RECORD = "weights_record"  # attribute: how weights were made, as JSON
FRAMES_SHA256 = "frames_sha256"  # in it: of the frames to which they belong
TRAJECTORY_LENGTHS = ArrayKey("trajectory_lengths", "(T,)", "frames")

MAPPED_ATOMS = ArrayKey("mapped_atoms", "(n,)", "index in the source trajectories")
COORDINATE_MAP = ArrayKey("coordinate_map", "(N, n)", "1")
FORCE_MAP = ArrayKey("force_map", "(N, n)", "1")
# Of sets of labels that a flow made from the frames of another dataset.
SOURCE_FRAMES = ArrayKey("source_frames", "(F,)", "frame of the dataset that was labelled")
LOG_PROB = ArrayKey("log_prob", "(F,)", "1")

DATASET_ARRAYS = (COORDINATES, FORCES, WEIGHTS, TRAJECTORY_LENGTHS, MAPPED_ATOMS, COORDINATE_MAP, FORCE_MAP)
LABEL_SET_ARRAYS = (SOURCE_FRAMES, LOG_PROB)

# Per-bead arrays of ase.Atoms.
BEAD_TYPE = ArrayKey("bead_type", "(N,)", "index into the vocabulary")
BEAD_NAME = ArrayKey("bead_name", "(N,)", "name of the bead type")
RESIDUE_NUMBERS = ArrayKey("residuenumbers", "(N,)", "as in the PDB")
CHAINS = ArrayKey("chain", "(N,)", "index")

MAX_FORCE = 1e4  # eV/Å; beyond it positions have exploded
MAX_BEAD_ENERGY = 1e5  # eV for each bead; beyond it too
COINCIDENT = 0.01  # Å; nearer beads are on one spot, where forces have no direction

# Names of molecules and recipes become names of HDF5 groups and of folders.
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"  # for re.fullmatch: "$" alone lets a line end follow

DATASET_FORMAT = "ase-cg dataset"
DATASET_VERSION = 1
MODEL_FORMAT = "ase-cg model"
MODEL_VERSION = 1
