"""Residue numbers of published networks, against tables written out here, and rows that were never trained."""

import json
import warnings

import numpy as np
import pytest
import torch

from ase_cg import CGModel, InputError, read_beads
from ase_cg.beads.atoms import read_topology
from ase_cg.beads.residues import RESIDUES
from ase_cg.beads.topology import BeadTopology
from ase_cg.models.residue_numbers import NUMBERINGS, residue_numbers
from ase_cg.models.torchmd import torchmd_type
from ase_cg.models.torchmdnet import EMBEDDING, import_torchmdnet, read_checkpoint
from ase_cg.models.trained_rows import squared_gradients, trained_rows

# Residue, number in the multi-protein network, number in torchmd-exp and the chignolin tutorial, TorchMD type of bead.
# "CAL" of norleucine is TorchMD's; the forms of HIS, CYS, … have the numbers and types of these.
TABLE = """
ALA  1  1 CAA    ARG 19 18 CAR    ASN  9  9 CAN    ASP  5  5 CAD    CYS 16 16 CAC    GLN 10 10 CAQ
GLU  6  6 CAE    GLY  2  2 CAG    HIS 11 11 CAH    ILE 22 21 CAI    LEU 21 20 CAL    LYS 20 19 CAK
MET 15 15 CAM    PHE  3  3 CAF    PRO  8  8 CAP    SER 12 12 CAS    THR 13 13 CAT    TRP  7  7 CAW
TYR  4  4 CAY    VAL 14 14 CAV    NLE 17 17 CAL    HID 11 11 CAH    HIE 11 11 CAH    HIP 11 11 CAH
CYX 16 16 CAC    CYM 16 16 CAC    ASH  5  5 CAD    GLH  6  6 CAE    LYN 20 19 CAK    MSE 15 15 CAM
"""
WORDS = TABLE.split()
MULTI_PROTEIN = {residue: int(row) for residue, row in zip(WORDS[::4], WORDS[1::4], strict=True)}
TORCHMD_EXP = {residue: int(row) for residue, row in zip(WORDS[::4], WORDS[2::4], strict=True)}
TYPES = dict(zip(WORDS[::4], WORDS[3::4], strict=True))
OWN = {residue: row for residue, row in MULTI_PROTEIN.items() if residue in RESIDUES[:21]}  # no forms


def chain(*names: str) -> BeadTopology:
    n = len(names)
    bonds = tuple((i, i + 1) for i in range(n - 1))
    return BeadTopology(names, names, tuple(range(1, n + 1)), (0,) * n, (12.0,) * n, bonds)


@pytest.fixture(scope="module")
def files(shared):
    folder = shared / "fast_folders"
    return folder / "torchmdnet_multi_protein.ckpt", folder / "prior_force_field.yaml"


def write_checkpoint(path, weights, settings, trained=None):
    """A checkpoint with Adam's state in which these rows had gradients; without it for None."""
    data = {"state_dict": weights, "hyper_parameters": settings}
    if trained is not None:
        moments = torch.zeros_like(weights[EMBEDDING])
        moments[list(trained)] = 1e-4
        data["optimizer_states"] = [{"state": {0: {"exp_avg_sq": moments}}, "param_groups": [{"params": [0]}]}]
    torch.save(data, path)
    return path


def test_every_residue_has_its_published_number_and_type():
    assert set(TYPES) == set(RESIDUES)
    for residue in RESIDUES:
        assert residue_numbers("multi-protein").row(residue) == MULTI_PROTEIN[residue]
        assert residue_numbers("torchmd-exp").row(residue) == TORCHMD_EXP[residue]
        assert torchmd_type(residue) == TYPES[residue]
    assert set(NUMBERINGS) == {"multi-protein", "torchmd-exp"}
    for residue in ("ACE", "HOH", "XXX"):
        assert residue_numbers("multi-protein").row(residue) is None
        with pytest.raises(InputError, match=f"no atom type for residue {residue}"):
            torchmd_type(residue)


@pytest.mark.parametrize(("numbering", "table"), [("multi-protein", MULTI_PROTEIN), ("torchmd-exp", TORCHMD_EXP)])
def test_an_imported_network_has_the_numbered_row_for_each_residue(numbering, table, files, tmp_path):
    weights, settings = read_checkpoint(files[0])
    trained = set(table.values())
    model = import_torchmdnet(
        write_checkpoint(tmp_path / "all.ckpt", weights, settings, trained), files[1], numbering=numbering
    )
    assert model.vocabulary == RESIDUES
    for residue, ours in zip(model.vocabulary, model.backbone.embedding.weight, strict=True):
        assert torch.equal(ours, weights[EMBEDDING][table[residue]].double()), residue
    model.save(tmp_path / "m.safetensors")
    kept = CGModel.load(tmp_path / "m.safetensors").card.provenance["numbering"]
    assert kept == {"name": numbering, "rows": table}


def test_own_tables_are_read_from_a_dict_a_json_and_a_yaml_file(files, tmp_path):
    (tmp_path / "own.json").write_text(json.dumps(OWN))
    (tmp_path / "own.yaml").write_text("".join(f"{name}: {row}\n" for name, row in OWN.items()))
    by_name = import_torchmdnet(*files, numbering="multi-protein")
    for numbering, name in (
        (OWN, "own table"),
        (tmp_path / "own.json", "own.json"),
        (str(tmp_path / "own.yaml"), "own.yaml"),
    ):
        model = import_torchmdnet(*files, numbering=numbering)
        assert model.vocabulary == by_name.vocabulary
        assert torch.equal(model.backbone.embedding.weight, by_name.backbone.embedding.weight)
        assert model.card.provenance["numbering"]["name"] == name
    assert [file["file"] for file in model.card.provenance["imported_from"]][-1] == "own.yaml"
    # Other programs' names count as ours; norleucine is never read as methionine.
    assert residue_numbers({"HSD": 11, "HSE": 12}).rows == {"HID": 11, "HIE": 12}
    assert residue_numbers({"MET": 3}).row("NLE") is None
    assert residue_numbers({"MET": 3}).row("MSE") == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"ALA": 1, "GLY": 1}, "gives ALA and GLY the same number 1"),
        ({"HIS": 11, "HID": 11, "CYX": 11}, "gives HIS and CYX the same number 11"),
        ({"ALA": 1, "XYZ": 2}, "'XYZ', which is no residue"),
        ({"ala": 1}, "'ala', which is no residue; did you mean 'ALA'"),
        ({"ALA": -1}, "gives ALA the number -1"),
        ({"ALA": True}, "gives ALA the number True"),
        ({"ALA": 1.0}, "gives ALA the number 1.0"),
        ({"ALA": "1"}, "gives ALA the number '1'"),
        ({"HSD": 11, "HID": 12}, "gives HID two numbers, 11 and 12"),
        ({}, "is empty"),
    ],
)
def test_damaged_tables_are_refused(table, message, tmp_path):
    with pytest.raises(InputError, match=message):
        residue_numbers(table)
    (tmp_path / "own.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match=message if table else "is no table of residues"):
        residue_numbers(tmp_path / "own.json")


def test_tables_that_say_something_twice_or_do_not_exist_are_refused(tmp_path):
    (tmp_path / "own.json").write_text('{"ARG": 18, "LYS": 19, "ARG": 19}')
    (tmp_path / "own.yaml").write_text("ARG: 18\nLYS: 20\nARG: 19\n")
    (tmp_path / "list.yaml").write_text("- ALA\n- GLY\n")
    for name in ("own.json", "own.yaml"):
        with pytest.raises(InputError, match="has residue ARG more than once"):
            residue_numbers(tmp_path / name)
    with pytest.raises(InputError, match="no table of residues"):
        residue_numbers(tmp_path / "list.yaml")
    with pytest.raises(InputError, match="does not exist"):
        residue_numbers(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"did you mean 'multi-protein'.*torchmd-protein-thermodynamics"):
        residue_numbers("multi_protein")


def test_a_checkpoint_does_not_say_its_numbering(files, shared):
    with pytest.raises(InputError) as raised:
        import_torchmdnet(*files)
    message = str(raised.value)
    for word in (
        "--numbering",
        "numbering=",
        "'multi-protein'",
        "'torchmd-exp'",
        "torchmd-exp cannot be right",
        "JSON",
    ):
        assert word in message
    assert "\n" not in message
    with pytest.raises(InputError) as raised:
        import_torchmdnet(shared / "chignolin_ca_forces" / "torchmdnet_cln_ca.ckpt", files[1])
    assert "'multi-protein'" in str(raised.value)
    assert "cannot be right" not in str(raised.value)  # its seven residues have the same numbers in both


def test_the_numbering_of_another_network_is_refused(files, shared):
    with pytest.raises(InputError, match=r"row 22 .* was trained, but numbering 'torchmd-exp' has no residue there"):
        import_torchmdnet(*files, numbering="torchmd-exp")
    with pytest.raises(InputError, match=r"gives VAL the number 100, but the embedding in .* has the rows 0 to 99"):
        import_torchmdnet(*files, numbering=OWN | {"VAL": 100})
    shifted = OWN | {"ARG": 18, "LYS": 19, "LEU": 20, "ILE": 21}
    with pytest.warns(UserWarning, match="row 22 .* was trained, but numbering 'own table' has no residue there"):
        model = import_torchmdnet(*files, numbering=shifted)
    assert "ARG" not in model.vocabulary
    homeodomain = read_topology(shared / "fast_folders" / "topology" / "homeodomain.psf", "calpha")
    with (
        pytest.raises(InputError, match=r"no bead 'ARG': it has row 18 of .* never trained"),
        pytest.warns(UserWarning, match="row 22"),
    ):
        import_torchmdnet(*files, [homeodomain], numbering=shifted)


def test_residues_that_were_never_trained_are_refused_wherever_they_are_asked_for(files, shared, tmp_path):
    cysteines = chain("ALA", "CYX", "GLY")
    with pytest.raises(InputError, match=r"no bead 'CYX': it has row 16 of .*never trained.*residues={'CYX': …}"):
        import_torchmdnet(*files, [cysteines], numbering="multi-protein")
    model = import_torchmdnet(*files, numbering="multi-protein")
    assert set(RESIDUES) - set(model.vocabulary) == {"CYS", "CYX", "CYM"}
    model.save(tmp_path / "m.safetensors")
    for asked in (model, CGModel.load(tmp_path / "m.safetensors"), model.prior_only()):
        with pytest.raises(InputError, match=r"no bead 'CYX': it has row 16 of .*never trained"):
            asked.graph(cysteines)
    chignolin = import_torchmdnet(
        shared / "chignolin_ca_forces" / "torchmdnet_cln_ca.ckpt", files[1], numbering="torchmd-exp"
    )
    assert set(chignolin.vocabulary) == {"GLY", "TYR", "ASP", "ASH", "GLU", "GLH", "TRP", "PRO", "THR"}
    with pytest.raises(InputError, match=r"no bead '\w{3}': it has row \d+ of .*never trained"):
        read_beads(shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb", chignolin)


def test_without_the_optimisers_state_norms_decide_and_the_user_may_know_more(files, tmp_path):
    weights, settings = read_checkpoint(files[0])
    bare = write_checkpoint(tmp_path / "bare.ckpt", weights, settings)
    model = import_torchmdnet(bare, files[1], numbering="multi-protein")
    # These were trained, but their rows look as random as the others: rare residues (norms of 10.5 to 12.9).
    rare = {"TRP", "PRO", "HIS", "MET", "NLE"}
    assert {name for name in RESIDUES[:21] if name not in model.vocabulary} == rare | {"CYS"}
    with pytest.raises(InputError, match=r"norm 10.5 is that of random numbers .* trained=\['TRP'\] \(--trained TRP\)"):
        import_torchmdnet(bare, files[1], [chain("ALA", "TRP")], numbering="multi-protein")
    model = import_torchmdnet(bare, files[1], numbering="multi-protein", trained=[*rare - {"HIS"}, "HSD"])
    assert {"TRP", "PRO", "HIS", "HIE", "MET", "MSE", "NLE"} < set(model.vocabulary)
    with pytest.raises(InputError, match=r"no bead 'ARG': it has row 18 .*norm 10.5 is that of random numbers"):
        import_torchmdnet(bare, files[1], [chain("ARG")], numbering="torchmd-exp")
    with pytest.raises(InputError, match="CYS has row 16, which was not trained"):
        import_torchmdnet(*files, numbering="multi-protein", trained=["CYS"])
    with pytest.raises(InputError, match="KLM cannot have been trained"):
        import_torchmdnet(*files, numbering="multi-protein", trained=["KLM"])


def test_no_row_of_random_numbers_counts_as_trained_and_shrunken_ones_do():
    rows = torch.randn(2000, 128, generator=torch.Generator().manual_seed(1))
    found = trained_rows(rows, range(1000), None, continued=False)
    assert not found.is_certain
    assert sum(found.trained) <= 8  # 0.1 % of 2000 expected
    shrunken = rows * torch.where(torch.arange(2000) < 100, 0.5, 1.0)[:, None]
    for decay in (1.0, 0.2):  # weight decay makes all rows smaller
        found = trained_rows(decay * shrunken, range(1000, 2000), None, continued=False)
        assert all(found.trained[:100])
        assert sum(found.trained[100:]) <= 8


def test_the_optimisers_state_tells_trained_rows_exactly():
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(2))
    rows[5] *= 0.1
    moments = torch.zeros(30, 8)
    moments[[1, 3], 2] = 1e-12
    found = trained_rows(rows, range(30), moments, continued=False)
    assert found.is_certain
    assert [row for row, was_trained in enumerate(found.trained) if was_trained] == [1, 3]
    # A training that went on from other weights says nothing of what those had seen.
    found = trained_rows(rows, range(30), moments, continued=True)
    assert not found.is_certain
    assert {1, 3, 5} <= {row for row, was_trained in enumerate(found.trained) if was_trained}


def test_the_state_of_an_optimiser_is_used_only_where_it_can_tell():
    shape = torch.Size([30, 8])

    def checkpoint(moments, **group):
        return {
            "optimizer_states": [{"state": {7: {"exp_avg_sq": moments}}, "param_groups": [{"params": [7], **group}]}]
        }

    some = torch.zeros(shape)
    some[3] = 1.0
    assert torch.equal(squared_gradients(checkpoint(some), shape), some)
    assert torch.equal(squared_gradients(checkpoint(torch.ones(shape)), shape), torch.ones(shape))
    for nothing in (
        {},
        {"optimizer_states": []},
        {"optimizer_states": [{"state": {}, "param_groups": [{"params": [0]}]}]},
        checkpoint(torch.ones(3, 3)),
        checkpoint(torch.zeros(shape)),
        checkpoint(some * np.nan),
        checkpoint(torch.ones(shape), weight_decay=0.1),  # it is part of every row's gradient
    ):
        assert squared_gradients(nothing, shape) is None


def test_a_model_that_was_imported_with_unrecorded_numbers_is_warned_of(files, tmp_path):
    model = import_torchmdnet(*files, numbering="multi-protein")
    model.save(tmp_path / "new.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CGModel.load(tmp_path / "new.safetensors")
    del model.card.provenance["numbering"]
    model.save(tmp_path / "old.safetensors")
    with pytest.warns(UserWarning, match="import it again with --numbering"):
        CGModel.load(tmp_path / "old.safetensors")
