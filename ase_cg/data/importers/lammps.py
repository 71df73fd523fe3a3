"""LAMMPS dump files with positions and, perhaps, forces."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.importers.frames import Frames, chunk_frames
from ase_cg.errors import InputError, reason

if TYPE_CHECKING:
    from ase_cg.data.importers import Source

UNIT_STYLES: Mapping[str, tuple[str, str]] = {"real": ("Å", "kcal/mol/Å"), "metal": ("Å", "eV/Å")}
POSITION_COLUMNS = (("xu", "yu", "zu"), ("x", "y", "z"), ("xsu", "ysu", "zsu"), ("xs", "ys", "zs"))
FORCE_COLUMNS = ("fx", "fy", "fz")


def read_lammps(source: "Source") -> Iterator[Frames]:
    """Read a text dump: atoms sorted by their id, scaled positions multiplied out, image flags applied.

    Units are those of ``ITEM: UNITS`` where the dump has it (``dump_modify units yes``).
    """
    with source.path.open(encoding="utf-8", errors="replace") as file:
        reader = _Dump(source, file)
        pieces: list[tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]]] = []
        step = chunk_frames(source.topology.n_atoms)
        for frame in reader.frames():
            pieces.append(frame)
            if len(pieces) == step:
                yield reader.stacked(pieces)
                pieces = []
        if pieces:
            yield reader.stacked(pieces)


class _Dump:
    """A dump that is being read."""

    def __init__(self, source: "Source", file: IO[str]) -> None:
        self._path, self._file = source.path, file
        self._units: tuple[str | None, str | None] = (None, None)
        self._frame = 0
        self._n_atoms = -1
        self._cell, self._origin, self._periodic = np.zeros((3, 3)), np.zeros(3), np.ones(3, dtype=bool)

    def frames(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]]]:
        for line in self._file:
            if line.startswith("ITEM: ATOMS"):
                yield self._atoms(line.split()[2:])
                self._frame += 1
            elif line.startswith("ITEM:"):
                self._read_header(line.removeprefix("ITEM:").strip())
            elif line.strip():
                raise InputError(
                    f"{self._path} is no LAMMPS dump or is damaged: {line.strip()[:60]!r} in frame {self._frame}"
                )

    def _read_header(self, item: str) -> None:
        if item == "UNITS":
            self._set_units(self._line())
        elif item in {"TIMESTEP", "TIME"}:
            self._line()
        elif item == "NUMBER OF ATOMS":
            self._set_size(int(self._numbers([self._line()])[0, 0]))
        elif item.startswith("BOX BOUNDS"):
            if "abc" in item:
                raise InputError(
                    f"{self._path} has a general triclinic box, which is not read; dump it with `dump_modify "
                    "triclinic/general no`"
                )
            self._cell, self._origin = _box(self._numbers([self._line() for _ in range(3)]))
            self._periodic = np.array([flag == "pp" for flag in item.split()[-3:]])

    def _set_size(self, n_atoms: int) -> None:
        if self._n_atoms not in {-1, n_atoms}:
            raise InputError(
                f"{self._path}: frame {self._frame} has {n_atoms} atoms, the frames before {self._n_atoms}; frames of "
                "different molecules cannot be one trajectory"
            )
        self._n_atoms = n_atoms

    def _line(self) -> str:
        line = self._file.readline()
        if not line:
            raise InputError(f"{self._path} is truncated in frame {self._frame} (counted from 0)")
        return line

    def _numbers(self, lines: list[str], columns: list[int] | None = None) -> NDArray[np.float64]:
        try:
            return np.loadtxt(lines, ndmin=2, usecols=columns)
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{self._path} is damaged in frame {self._frame} (counted from 0): {reason(error)}"
            ) from error

    def _set_units(self, line: str) -> None:
        style = line.strip()
        if style not in UNIT_STYLES:
            raise InputError(f"{self._path} is in LAMMPS's units {style!r}; known are {', '.join(UNIT_STYLES)}")
        self._units = UNIT_STYLES[style]

    def _atoms(self, columns: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]]:
        n_atoms, cell = self._n_atoms, self._cell
        place = {name: i for i, name in enumerate(columns)}
        xyz = next((names for names in POSITION_COLUMNS if all(name in place for name in names)), None)
        if xyz is None or "id" not in place:
            raise InputError(
                f"{self._path} has no columns for {'positions' if xyz is None else 'id'}; it has {' '.join(columns)}"
            )
        has_forces = all(name in place for name in FORCE_COLUMNS)
        images = ("ix", "iy", "iz") if xyz[0] in {"x", "xs"} and all(i in place for i in ("ix", "iy", "iz")) else ()
        wanted = ["id", *xyz, *(FORCE_COLUMNS if has_forces else ()), *images]
        lines = list(islice(self._file, n_atoms))
        if len(lines) != n_atoms or n_atoms < 0 or not lines[-1].endswith("\n"):
            raise InputError(f"{self._path} is truncated in frame {self._frame} (counted from 0)")
        table = self._numbers(lines, [place[name] for name in wanted])
        table = table[np.argsort(table[:, 0], kind="stable")]
        if len(np.unique(table[:, 0])) != n_atoms:
            raise InputError(f"{self._path} names an atom twice in frame {self._frame} (counted from 0)")
        positions = table[:, 1:4]
        if xyz[0].startswith("xs"):
            positions = positions @ cell + self._origin
        if images:
            positions = positions + table[:, -3:] @ cell
        # Cell vectors along which the box is not periodic have no images.
        return positions, table[:, 4:7] if has_forces else None, np.where(self._periodic[:, None], cell, 0.0)

    def stacked(
        self, frames: list[tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]]]
    ) -> Frames:
        positions, forces, cells = zip(*frames, strict=True)
        if any((force is None) != (forces[0] is None) for force in forces):
            raise InputError(f"{self._path} has forces in some frames only")
        return Frames(
            np.stack(positions), None if forces[0] is None else np.stack(forces), np.stack(cells), *self._units
        )


def _box(bounds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cell vectors and origin of the three lines of bounds; of a triclinic cell they are its bounding box."""
    low, high = bounds[:, 0], bounds[:, 1]
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] > 2 else (0.0, 0.0, 0.0)
    low = low - np.array([min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0])
    high = high - np.array([max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0])
    lengths = high - low
    return np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]]), low
