"""Which residues a published network knows: its numbering, checked against the rows that were trained."""

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor

from ase_cg.beads.residues import RESIDUES, canonical_name
from ase_cg.errors import InputError
from ase_cg.models.residue_numbers import NUMBERINGS, PathLike, ResidueNumbers, known_numberings, residue_numbers
from ase_cg.models.trained_rows import TrainedRows, trained_rows

Evidence = tuple[Tensor, Tensor | None, bool]
"""The embedding, Adam's mean squared gradients of it, and whether the training went on from another one's weights."""


def known_residues(
    evidence: Evidence, numbering: PathLike | Mapping[str, int] | None, trained: Sequence[str], path: str
) -> tuple[ResidueNumbers, dict[str, int], dict[str, str]]:
    """Return a network's numbering, the rows of the residues it was trained on, and why others are left out.

    Parameters
    ----------
    evidence : tuple
        See :data:`Evidence`.
    numbering : str, path, mapping of str to int, or None
        See :func:`ase_cg.models.residue_numbers.residue_numbers`.
    trained : sequence of str
        Residues that count as trained by the user's word.
    path : str
        Of the checkpoint, for messages.

    Returns
    -------
    numbers : ResidueNumbers
    rows : dict of str to int
        Rows of the embedding by residue, in the standard order of residues.
    left_out : dict of str to str
        Reasons, by residue.

    Raises
    ------
    InputError
        If the numbering is not given, cannot be right for this checkpoint, or `trained` contradicts the checkpoint.
    """
    embedding, moments, continued = evidence
    if numbering is None:
        raise InputError(_ask(trained_rows(embedding, (), moments, continued=continued), path))
    numbers = residue_numbers(numbering)
    outside = [name for name, row in numbers.rows.items() if row >= len(embedding)]
    if outside:
        raise InputError(
            f"numbering {numbers.name!r} gives {outside[0]} the number {numbers.rows[outside[0]]}, but the embedding "
            f"in {path} has the rows 0 to {len(embedding) - 1}: the numbering is another network's"
        )
    unused = sorted(set(range(len(embedding))) - set(numbers.rows.values()))
    known = trained_rows(embedding, unused, moments, continued=continued)
    _check_unnamed(numbers, known, path)
    by_user = _by_user(numbers, known, trained)
    rows, left_out = {}, {}
    for name in RESIDUES:
        row = numbers.row(name)
        if row is None:
            left_out[name] = f"numbering {numbers.name!r} has no number for it; give a table that does"
        elif known.trained[row] or row in by_user:
            rows[name] = row
        else:
            left_out[name] = _never_trained(name, row, numbers, known)
    return numbers, rows, left_out


def _never_trained(residue: str, row: int, numbers: ResidueNumbers, known: TrainedRows) -> str:
    """Return why a residue is left out, and what to do."""
    advice = (
        f"Use a network that was trained with {residue}, read it as a similar residue with residues={{'{residue}': …}} "
        f"(--residue), or correct the numbering if {numbers.name!r} is not this network's"
    )
    if not known.is_certain:
        advice += f"; if you know that the training data had it, say trained=['{residue}'] (--trained {residue})"
    return f"it has row {row} of the network's embedding, which was never trained ({known.reason(row)}). {advice}"


def _ask(known: TrainedRows, path: str) -> str:
    """Return what to do without a numbering, and which of the published ones cannot be right."""
    misfits = [name for name, rows in NUMBERINGS.items() if _unnamed(rows, known)]
    hint = f"; {', '.join(misfits)} cannot be right, since it has no residue for rows that were trained" * bool(misfits)
    return (
        f"{path} does not say which numbers its residues have; choose a numbering by where it comes from, with "
        f"numbering=… (--numbering){hint}. {known_numberings()}. For another network give its own table: a JSON or "
        "YAML file such as {ALA: 1, GLY: 2}, or a dict"
    )


def _unnamed(rows: Mapping[str, int], known: TrainedRows) -> list[int]:
    """Return the rows that certainly were trained and belong to no residue."""
    used = [row for row, was_trained in enumerate(known.trained) if was_trained] if known.is_certain else []
    return [row for row in used if row not in rows.values()]


def _check_unnamed(numbers: ResidueNumbers, known: TrainedRows, path: str) -> None:
    """Refuse a published numbering that leaves trained rows without a residue; warn of an own table that does."""
    unnamed = _unnamed(numbers.rows, known)
    if not unnamed:
        return
    found = (
        f"row {unnamed[0]} of the embedding in {path} was trained, but numbering {numbers.name!r} has no residue there"
    )
    if numbers.is_published:
        raise InputError(f"{found}: it is another network's. {known_numberings()}; or give the network's own table")
    warnings.warn(f"{found}; check that the table is this network's", UserWarning, stacklevel=4)


def _by_user(numbers: ResidueNumbers, known: TrainedRows, trained: Sequence[str]) -> set[int]:
    """Return the rows that count as trained by the user's word."""
    rows = set()
    for given in trained:
        name = canonical_name(given)
        row = numbers.row(name)
        if row is None:
            raise InputError(f"{given} cannot have been trained: numbering {numbers.name!r} has no number for it")
        if known.is_certain and not known.trained[row]:
            raise InputError(f"{given} has row {row}, which was not trained: {known.reason(row)}")
        rows.add(row)
    return rows
