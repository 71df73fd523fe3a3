"""PSF files, all-atom or of beads; MDTraj refuses those whose atoms are not numbered in sequence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase_cg.errors import InputError

SERIALS_PER_BOND = 2


def read_psf(path: Path) -> Any:
    """Read the atoms and bonds of a PSF file.

    Bonds count atoms by their place in the file, whatever numbers the atoms carry (those of a bead PSF are often the
    numbers of the atoms the beads were made from).

    Returns
    -------
    mdtraj.Topology

    Raises
    ------
    InputError
        If the file is no PSF, is cut off, or a bond joins atoms that are not there.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no PSF file") from error
    if not lines or not lines[0].startswith("PSF"):
        raise InputError(f"{path} is no PSF file: its first line does not begin with PSF")
    atoms = [line.split() for line in _section(lines, "!NATOM", path)]
    n_bonds, rows = _count(lines, "!NBOND", path), _section(lines, "!NBOND", path, by_rows=True)
    try:
        numbers = [int(number) for row in rows for number in row.split()][: n_bonds * SERIALS_PER_BOND]
        topology = _topology(atoms)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if len(numbers) != n_bonds * SERIALS_PER_BOND:
        raise InputError(f"{path} is truncated: it claims {n_bonds} bonds, and {len(numbers) // 2} are there")
    made = list(topology.atoms)
    if any(not 1 <= number <= len(made) for number in numbers):
        raise InputError(f"{path} is damaged: a bond joins atoms that are not among its {len(made)}")
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        topology.add_bond(made[first - 1], made[second - 1])
    return topology


def _count(lines: list[str], title: str, path: Path) -> int:
    for line in lines:
        if title in line:
            return int(line.split()[0])
    raise InputError(f"{path} is truncated or no PSF file: it has no section {title}")


def _section(lines: list[str], title: str, path: Path, *, by_rows: bool = False) -> list[str]:
    """Return the lines of a section: as many as it claims, or all up to an empty one."""
    count = _count(lines, title, path)
    start = next(i for i, line in enumerate(lines) if title in line) + 1
    if by_rows:
        return list(_until_empty(lines[start:]))
    found = [line for line in lines[start : start + count] if line.strip()]
    if len(found) != count:
        raise InputError(f"{path} is truncated: it claims {count} atoms, and {len(found)} are there")
    return found


def _until_empty(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.strip():
            return
        yield line


def _topology(rows: list[list[str]]) -> Any:
    """Make the topology of rows `serial segment residue-number residue atom type charge mass …`."""
    import mdtraj

    topology = mdtraj.Topology()
    chain = residue = last = None
    for _, segment, number, residue_name, name, _, _, mass, *_ in rows:
        if chain is None or last is None or segment != last[0]:
            chain = topology.add_chain()
            residue = None
        if residue is None or (segment, number, residue_name) != last:
            residue = topology.add_residue(residue_name, chain, resSeq=int(number.rstrip("ABCDEFGHIJ")))
        last = (segment, number, residue_name)
        topology.add_atom(name, _element(name, float(mass)), residue)
    return topology


def _element(name: str, mass: float) -> Any:
    """Return the element of a mass, or of the atom's name where the mass is that of none."""
    from mdtraj.core.element import Element

    if mass > 0:
        nearest = Element.getByMass(mass)
        if nearest is not None and abs(nearest.mass - mass) < 0.5:
            return nearest
    letter = name.lstrip("0123456789")[:1].upper()
    return Element.getBySymbol(letter if letter in {"H", "C", "N", "O", "S", "P"} else "C")
