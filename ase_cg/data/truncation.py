"""Find trajectory files that were cut off: MDTraj reads what is left of them without a word."""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ase_cg.errors import InputError

XTC_MAGICS = (1995, 2023)  # 2023: files with 64-bit sizes, of systems with very many atoms
TRR_MAGIC = 1993
XTC_HEADER = 4 * (4 + 9)  # magic, atoms, step, time, box
XTC_UNCOMPRESSED_ATOMS = 9


def check_complete(path: Path, frames_read: int) -> None:
    """Raise :class:`InputError` if a file ends in the middle.

    XTC and TRR frames are walked from header to header; a DCD header says how many frames there are. Other formats say
    themselves, when they are read, that they are damaged.

    Parameters
    ----------
    path : Path
    frames_read : int
        Frames that were read from it.
    """
    if path.suffix == ".xtc":
        with path.open("rb") as file:
            complete, rest = _walk_xtc(file, path.stat().st_size)
        if rest or complete != frames_read:
            raise InputError(f"{path} is truncated or damaged after frame {complete}")
    elif path.suffix == ".trr":
        with path.open("rb") as file:
            contents, rest = _walk_trr(file, path.stat().st_size)
        if contents.without_positions:
            raise InputError(
                f"{path}: {contents.without_positions} of {contents.frames} frames hold no positions, which MDTraj "
                "cannot tell"
            )
        if rest or contents.frames != frames_read:
            raise InputError(f"{path} is truncated or damaged after frame {contents.frames}")
    elif path.suffix == ".dcd":
        with path.open("rb") as file:
            header = file.read(12)
        order = "<" if header[:1] == b"\x54" else ">"
        claimed = struct.unpack(order + "i", header[8:12])[0]
        if claimed > frames_read:
            raise InputError(f"{path} is truncated: its header claims {claimed} frames, and {frames_read} are there")


class TrrContents(NamedTuple):
    """Numbers of frames in a TRR file."""

    frames: int
    without_positions: int
    with_forces: int


def trr_contents(path: Path) -> TrrContents:
    """Return what the frames of a TRR file hold.

    Raises
    ------
    InputError
        If the file ends in the middle of a frame.
    """
    with path.open("rb") as file:
        contents, rest = _walk_trr(file, path.stat().st_size)
    if rest:
        raise InputError(f"{path} is truncated or damaged after frame {contents.frames}")
    return contents


def _walk_xtc(file: BinaryIO, size: int) -> tuple[int, bool]:
    """Return the number of complete frames, and whether something incomplete follows them."""
    frames = end = 0
    while end < size:
        file.seek(end)
        header = file.read(XTC_HEADER + 4)
        if len(header) < XTC_HEADER + 4:
            return frames, True
        magic, atoms = struct.unpack(">ii", header[:8])
        if magic not in XTC_MAGICS:
            return frames, True
        if atoms <= XTC_UNCOMPRESSED_ATOMS:
            end += XTC_HEADER + 4 + 12 * atoms
        else:
            # precision, smallest and largest integers, index of the smallest; then the number of bytes
            wide = magic == XTC_MAGICS[1]
            counts = file.read(32 + (8 if wide else 4))
            if len(counts) < 32 + (8 if wide else 4):
                return frames, True
            n_bytes = struct.unpack(">q" if wide else ">i", counts[32:])[0]
            end = file.tell() + (n_bytes + 3) // 4 * 4
        if end > size:
            return frames, True
        frames += 1
    return frames, False


def _walk_trr(file: BinaryIO, size: int) -> tuple[TrrContents, bool]:
    """Return what the complete frames hold, and whether something incomplete follows them."""
    frames = empty = forced = end = 0
    while end < size:
        file.seek(end)
        start = file.read(12)
        if len(start) < 12 or struct.unpack(">i", start[:4])[0] != TRR_MAGIC:
            return TrrContents(frames, empty, forced), True
        file.seek((struct.unpack(">i", start[8:12])[0] + 3) // 4 * 4, 1)  # the name of the format
        header = file.read(13 * 4)
        if len(header) < 13 * 4:
            return TrrContents(frames, empty, forced), True
        *sizes, atoms, _, _ = struct.unpack(">13i", header)
        box, x, v, f = sizes[2], *sizes[7:10]
        # Nine numbers in the box, three an atom: their size tells single from double precision.
        double = box == 9 * 8 or max(x, v, f) == atoms * 3 * 8
        end = file.tell() + 2 * (8 if double else 4) + sum(sizes)
        if end > size:
            return TrrContents(frames, empty, forced), True
        frames += 1
        empty += not x
        forced += bool(f)
    return TrrContents(frames, empty, forced), False
