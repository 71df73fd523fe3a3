"""Structures made for tests, as PDB text."""

from collections.abc import Sequence
from pathlib import Path

BACKBONE = {"N": (-1.2, 0.5), "CA": (0.0, 0.0), "C": (1.3, 0.5), "O": (1.3, 1.7)}
SIDE_CHAIN = {"CB": (0.0, -1.5), "SG": (0.0, -3.3)}


def write_peptides(path: Path, chains: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> Path:
    """Write flat peptides, the second chain upside down below the first, so that their SG atoms touch."""
    lines, serial = [], 0
    for chain, residues in enumerate(chains):
        for place, name in enumerate(residues):
            number = numbers[place] if numbers else place + 1
            atoms = dict(BACKBONE)
            if name != "GLY":
                atoms["CB"] = SIDE_CHAIN["CB"]
            if name in {"CYS", "CYX"}:
                atoms["SG"] = SIDE_CHAIN["SG"]
            for atom, (dx, dy) in atoms.items():
                serial += 1
                x, y = 3.8 * number + dx, dy if chain == 0 else -8.65 - dy
                lines.append(
                    f"ATOM  {serial:5d}  {atom:<3s} {name:<3s} {'AB'[chain]}{number:4d}    "
                    f"{x:8.3f}{y:8.3f}{0.0:8.3f}  1.00  0.00          {atom[0]:>2s}\n"
                )
        lines.append("TER\n")
    path.write_text("".join([*lines, "END\n"]))
    return path
