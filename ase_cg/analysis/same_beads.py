"""Whether two molecules have the same beads, and in which order."""

from ase_cg.beads.residues import PARENTS
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError


def order_of_beads(mine: BeadTopology, theirs: BeadTopology, my_name: str, their_name: str) -> list[int]:
    """Return which of my beads is each of theirs.

    Files list the atoms of a residue in different orders. Beads of a residue are therefore found by name where the
    residues are the same; those that only I have (the second oxygen at an end) are left out.

    Raises
    ------
    InputError
        If one of theirs is missing; the first bead that differs is named.
    """
    residues = [[_parent(one.residue_names[group[0]]) for group in one.residues] for one in (mine, theirs)]
    if residues[0] == residues[1]:
        found = [
            {_parent(mine.names[bead]): bead for bead in ours}.get(_parent(theirs.names[bead]))
            for ours, group in zip(mine.residues, theirs.residues, strict=True)
            for bead in group
        ]
        known = [bead for bead in found if bead is not None]
        in_order = [bead for group in theirs.residues for bead in group]
        if len(set(known)) == theirs.n_beads and in_order == list(range(theirs.n_beads)):
            return known
    check_same_beads(list(mine.names), list(theirs.names), my_name, their_name)
    return list(range(theirs.n_beads))


def check_same_beads(mine: list[str], theirs: list[str], my_name: str, their_name: str) -> None:
    """Check that two molecules have the same beads in the same order; numbers of residues may differ.

    Raises
    ------
    InputError
        If they differ; the first bead that does is named.
    """
    if len(mine) != len(theirs):
        raise InputError(
            f"{my_name} has {len(mine)} beads ({_shown(mine)}), {their_name} has {len(theirs)} ({_shown(theirs)}); "
            "both need the same resolution and the same molecule"
        )
    for place, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        if _parent(one) != _parent(other):
            raise InputError(
                f"{my_name} has {one} as bead {place} (counted from 0), {their_name} has {other}; both need the same "
                "resolution and the same molecule"
            )


def _parent(name: str) -> str:
    """Return the name of a bead with its residue in the standard form, whatever its protonation."""
    residue, colon, atom = name.partition(":")
    return PARENTS.get(residue, residue) + colon + atom


def _shown(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 12 else [*names[:11], "…"])
