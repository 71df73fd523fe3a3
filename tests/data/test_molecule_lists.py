"""Several molecules from one list, and wrong lists."""

import numpy as np
import pytest

from ase_cg import Dataset, InputError, map_molecules
from ase_cg.data.mapping_settings import read_molecules
from tests.data.conftest import N_FRAMES


def test_several_molecules_and_weights_from_one_list(all_atom, tmp_path, example_data, shared):
    np.savez(tmp_path / "a.npz", positions=all_atom[0], forces=all_atom[1])
    weights = np.linspace(0.5, 2.0, N_FRAMES)
    np.savetxt(tmp_path / "w.txt", weights)
    pdb = shared / "chignolin_ca_forces" / "chignolin_cln025.pdb"
    (tmp_path / "list.yaml").write_text(
        f"""
molecules:
  - name: ala2
    trajectories: [a.npz]
    weights: [w.txt]
    topology: {example_data / "ala2.pdb"}
    resolution: heavy
    temperature: 300
    force_map: constraint_sum
    constraints: hbonds
    length_unit: nm
    force_unit: kJ/mol/nm
  - name: chignolin
    trajectories: [{pdb}]
    topology: {pdb}
    resolution: {{name: calpha, termini: true}}
    temperature: 350
"""
    )
    path = map_molecules(read_molecules(tmp_path / "list.yaml"), tmp_path / "d.h5", quiet=True)
    with Dataset.open(path) as dataset:
        assert list(dataset.molecules) == ["ala2", "chignolin"]
        ala2, chignolin = dataset.molecules.values()
        assert ala2.weights() == pytest.approx(weights)
        assert ala2.topology.n_beads == 10
        assert ala2.mapping["weights"][0]["file"] == "w.txt"
        atoms, positions_map, force_map = ala2.maps()
        assert atoms.tolist() == list(range(22))
        assert force_map @ positions_map.T == pytest.approx(np.eye(10))
        assert chignolin.weights() is None
        assert chignolin.topology.names[0] == "NTYR"
        assert chignolin.resolution == {"name": "calpha", "termini": True}
        assert not chignolin.has_forces
    before = path.read_bytes()
    with pytest.raises(InputError, match="has a molecule 'ala2' already"):
        map_molecules(read_molecules(tmp_path / "list.yaml"), path, add=True, quiet=True)
    assert path.read_bytes() == before
    more = [m.model_copy(update={"name": "again"}) for m in read_molecules(tmp_path / "list.yaml")[1:]]
    map_molecules(more, path, add=True, quiet=True)
    with Dataset.open(path) as dataset:
        assert list(dataset.molecules) == ["again", "ala2", "chignolin"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("molecules: []", "molecules"),
        ("molecules:\n - {name: a, topology: t.pdb, temperature: 300}", "molecules.0.trajectories is missing"),
        (
            "molecules:\n - {name: a, topology: t.pdb, temperature: 300, trajectories: [x], lenght_unit: nm}",
            "molecules.0.lenght_unit is no key of a list of molecules; did you mean 'length_unit'",
        ),
        (
            "molecules:\n" + 2 * " - {name: a, topology: t.pdb, temperature: 300, trajectories: [x]}\n",
            "two molecules are called 'a'",
        ),
        ("molecules: [", "no valid YAML"),
    ],
)
def test_wrong_lists_of_molecules_are_one_sentence(text, message, tmp_path):
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_molecules(tmp_path / "list.yaml")
