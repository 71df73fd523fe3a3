"""Beads in viewers: colours by kind, radii by size, in nglview and in ASE's viewer."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms

from ase_cg import InputError
from ase_cg.analysis import bead_colors, bead_radii, view_beads, write_viewer_settings
from ase_cg.beads.atoms import beads_to_atoms
from ase_cg.beads.topology import BeadTopology


@pytest.fixture(scope="module")
def beads():
    names = ("TRP", "GLY", "ASP", "LYS")
    topology = BeadTopology(names, names, (1, 2, 3, 4), (0,) * 4, (12.0,) * 4, ((0, 1), (1, 2), (2, 3)))
    return beads_to_atoms(topology, 3.8 * np.arange(12).reshape(4, 3) / 3)


def test_colours_and_radii_say_what_a_bead_is():
    radii = bead_radii(["TRP", "GLY", "ALA:N", "ALA:CB", "HID", "XYZ"])
    assert radii[0] > radii[1] > radii[2]
    assert radii[4] == bead_radii(["HIS"])[0]
    assert np.all((radii > 0.5) & (radii < 3))
    colors = bead_colors(["ASP", "LYS", "ALA:N", "ALA:O", "GLY:N", "XYZ"])
    assert colors.shape == (6, 3)
    assert ((colors >= 0) & (colors <= 1)).all()
    assert colors[0].argmax() == 0  # acids are red
    assert colors[1].argmax() == 2  # bases are blue
    assert np.array_equal(colors[2], colors[4])


def test_ase_gui_draws_beads_by_the_file_that_is_written(beads, tmp_path):
    path = write_viewer_settings(beads, tmp_path / ".ase" / "gui.py")
    numbers = beads.get_atomic_numbers()
    code = (
        "import json, sys; from ase import Atoms; from ase.gui.images import Images\n"
        f"atoms = Atoms(numbers={numbers.tolist()})\n"
        "radii = Images([atoms]).get_radii(atoms)\n"
        "from ase.data.colors import jmol_colors\n"
        f"print(json.dumps([list(radii), jmol_colors[{numbers.tolist()}].tolist()]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    radii, colors = json.loads(out.stdout)
    names = ["TRP", "GLY", "ASP", "LYS"]
    scale = radii[0] / bead_radii(names)[0]  # the viewer draws all radii a little smaller
    assert radii == pytest.approx(scale * bead_radii(names), abs=2e-3)
    assert scale == pytest.approx(0.89, abs=0.01)
    assert colors == pytest.approx(bead_colors(names), abs=2e-3)
    with pytest.raises(InputError, match="exists already"):
        write_viewer_settings(beads, path)
    with pytest.raises(InputError, match="no beads"):
        write_viewer_settings(Atoms("H2"), tmp_path / "x.py")


def test_nglview_shows_beads_in_their_colours(beads):
    pytest.importorskip("nglview")
    widget = view_beads([beads, beads])
    sent = [m for m in widget._ngl_msg_archive if m["methodName"] == "addRepresentation"]
    shown = {m["kwargs"]["sele"]: m["kwargs"] for m in sent}
    assert set(shown) == {"@0", "@1", "@2", "@3"}
    assert shown["@2"]["radius"] == pytest.approx(bead_radii(["ASP"])[0])
    assert int(shown["@2"]["color"][1:3], 16) > int(shown["@2"]["color"][5:7], 16)
    assert widget.max_frame == 1
    with pytest.raises(InputError, match="no beads"):
        view_beads(Atoms("H2"))
