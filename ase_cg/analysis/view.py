"""Beads to look at: colours and radii, for nglview, for ASE's viewer and for its pictures."""

import colorsys
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError
from ase_cg.files import written_whole

if TYPE_CHECKING:
    from ase import Atoms

Colors = NDArray[np.float64]

# By the nature of the side chain; within a kind the names differ in lightness.
KINDS: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "aliphatic": (0.10, 0.55, ("ALA", "VAL", "LEU", "ILE", "MET", "NLE", "MSE", "PRO", "GLY")),
    "aromatic": (0.78, 0.45, ("PHE", "TYR", "TRP")),
    "polar": (0.33, 0.55, ("SER", "THR", "ASN", "GLN", "CYS", "CYX", "HIS", "HID", "HIE", "ASH", "GLH", "LYN")),
    "positive": (0.60, 0.70, ("ARG", "LYS", "HIP")),
    "negative": (0.00, 0.70, ("ASP", "GLU", "CYM")),
    "cap": (0.00, 0.00, ("ACE", "NME", "NH2")),
}
# Radii of spheres of the volume of residues (Zamyatnin, Prog. Biophys. Mol. Biol. 24, 107 (1972)), in Å.
VOLUMES = {
    "GLY": 60.1,
    "ALA": 88.6,
    "SER": 89.0,
    "CYS": 108.5,
    "ASP": 111.1,
    "PRO": 112.7,
    "ASN": 114.1,
    "THR": 116.1,
    "GLU": 138.4,
    "VAL": 140.0,
    "GLN": 143.8,
    "HIS": 153.2,
    "MET": 162.9,
    "ILE": 166.7,
    "LEU": 166.7,
    "LYS": 168.6,
    "ARG": 173.4,
    "PHE": 189.9,
    "TYR": 193.6,
    "TRP": 227.8,
}
ATOM_RADII = {"C": 1.7, "N": 1.55, "O": 1.52, "S": 1.8, "P": 1.8, "H": 1.1}  # Å, van der Waals
ATOM_COLORS = {"C": (0.45, 0.45, 0.45), "N": (0.2, 0.3, 0.9), "O": (0.85, 0.1, 0.1), "S": (0.85, 0.75, 0.1)}
SHRUNK = 0.5  # of the radius: bonds stay visible


def bead_colors(names: Sequence[str]) -> Colors:
    """Return the colour of each bead, shape (N, 3), red, green and blue from 0 to 1.

    A bead that is a residue is coloured by the nature of its side chain; one that is an atom as atoms are.
    """
    return np.array([_color(name) for name in names])


def bead_radii(names: Sequence[str]) -> NDArray[np.float64]:
    """Return the radius at which each bead is drawn, shape (N,), in Å.

    Half of the radius of a sphere of the residue's volume, or half of the atom's van der Waals radius.
    """
    return np.array([SHRUNK * _radius(name) for name in names])


def _color(name: str) -> tuple[float, float, float]:
    residue, _, atom = name.partition(":")
    if atom:
        return ATOM_COLORS.get(_element(atom), (0.7, 0.5, 0.7))
    for hue, saturation, members in KINDS.values():
        if residue in members:
            place = members.index(residue) / max(len(members) - 1, 1)
            return colorsys.hls_to_rgb(hue, 0.65 - 0.25 * place, saturation)
    return 0.7, 0.5, 0.7


def _radius(name: str) -> float:
    from ase_cg.beads.residues import PARENTS

    residue, _, atom = name.partition(":")
    if atom:
        return ATOM_RADII.get(_element(atom), 1.7)
    volume = VOLUMES.get(PARENTS.get(residue, residue), 120.0)
    return float((3 * volume / (4 * np.pi)) ** (1 / 3))


def _element(atom: str) -> str:
    return atom.lstrip("0123456789")[:1]


def view_beads(atoms: "Atoms | Sequence[Atoms]") -> Any:
    """Return an nglview widget of beads, for a notebook.

    Parameters
    ----------
    atoms : ase.Atoms or sequence of ase.Atoms
        As :func:`ase_cg.read_beads` gives them; of several the first decides names and colours.

    Returns
    -------
    nglview.NGLWidget

    Raises
    ------
    InputError
        If nglview is not installed, or the atoms are no beads.
    """
    try:
        import nglview
    except ImportError as error:
        raise InputError(
            "beads are shown by nglview, which is not installed: `python -m pip install '.[notebook]'`"
        ) from error
    frames = [atoms] if hasattr(atoms, "get_positions") else list(atoms)
    names = _names(frames[0])
    # Beads go by as carbons, so that no atomic number that stands for a type is taken for an element.
    shown = [_as_carbon(frame) for frame in frames]
    widget = nglview.show_asetraj(shown) if len(shown) > 1 else nglview.show_ase(shown[0])
    widget.clear_representations()
    for name in sorted(set(names)):
        beads = ",".join(str(bead) for bead, other in enumerate(names) if other == name)
        red, green, blue = (round(255 * part) for part in bead_colors([name])[0])
        color, radius = f"#{red:02x}{green:02x}{blue:02x}", float(bead_radii([name])[0])
        widget.add_representation("spacefill", f"@{beads}", color=color, radius=radius)
    widget.center()
    return widget


def _as_carbon(atoms: "Atoms") -> "Atoms":
    from ase import Atoms

    return Atoms(numbers=np.full(len(atoms), 6), positions=atoms.get_positions(), cell=atoms.cell, pbc=atoms.pbc)


def _names(atoms: "Atoms") -> list[str]:
    from ase_cg.keys import BEAD_NAME

    if not atoms.has(BEAD_NAME.name):
        raise InputError("these atoms are no beads; read them with ase_cg.read_beads")
    return [str(name) for name in atoms.get_array(BEAD_NAME.name)]


def write_viewer_settings(atoms: "Atoms", path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the colours and radii of beads for ``ase gui``.

    ASE's viewer draws by atomic numbers, which for beads stand for types. It reads ``~/.ase/gui.py`` when it starts:
    a file that this function wrote there makes it draw these bead types as :func:`view_beads` does.

    Parameters
    ----------
    atoms : ase.Atoms
        As :func:`ase_cg.read_beads` gives them.
    path : path
        Such as ``~/.ase/gui.py``.
    overwrite : bool

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If the atoms are no beads, or the file exists.
    """
    names, numbers = _names(atoms), atoms.get_atomic_numbers().tolist()
    radii = dict(zip(numbers, bead_radii(names).round(3).tolist(), strict=True))
    colors = dict(zip(numbers, bead_colors(names).round(3).tolist(), strict=True))
    target = Path(path).expanduser()
    lines = [
        f'"""Beads in `ase gui`: {", ".join(sorted(set(names)))}."""',
        "",
        "from ase.data.colors import jmol_colors",
        "",
        f"gui_default_settings['covalent_radii'] = {sorted(radii.items())}",
        f"for number, color in {sorted(colors.items())}:",
        "    jmol_colors[number] = color",
    ]
    with written_whole(target, overwrite=overwrite) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target
