"""The backbone of a protein from its Cα atoms: peptide planes turned about the axes between them.

Peptide groups are rigid and planar, so that between two Cα only one angle is free: the turn of the plane about their
axis (Purisima and Scheraga, Biopolymers 23, 1207 (1984)). Neighbouring planes share a Cα, and with it the angle
N–Cα–C and the dihedrals φ and ψ. Dynamic programming finds the turns of all planes of a chain at which these are most
plausible together.
"""

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError

Floats = NDArray[np.float64]

TURNS = 36  # angles that are tried for each plane
CHUNK = 100  # frames at a time
CIS = 3.4  # Å; neighbouring Cα nearer than this are joined by a cis peptide (2.95 Å; trans 3.80)
FLAT = 1e-6  # Å; vectors whose cross product is shorter lie on a line
TAU, TAU_STD = np.radians(111.0), np.radians(4.0)  # N–Cα–C

# Bond lengths in Å and angles of peptide groups (Engh and Huber, Acta Cryst. A 47, 392 (1991)).
CA_C, C_N, N_CA, C_O = 1.525, 1.329, 1.458, 1.231
CA_C_N, C_N_CA, CA_C_O = np.radians(116.8), np.radians(121.7), np.radians(120.4)

CIS_ANGLES = np.radians(119.5), np.radians(126.0)  # Cα–C–N and C–N–Cα, wider where the two Cα are on one side

# Regions of φ and ψ in degrees and their shares: helix, strand, polyproline, left-handed helix. A residue with a side
# chain is seldom at φ > 0, proline nowhere near; glycine's regions are symmetric.
REGIONS = {
    "ALA": ((-63, -43, 0.4), (-120, 130, 0.25), (-70, 145, 0.3), (57, 42, 0.05)),
    "GLY": (
        *((-63, -43, 0.25), (-120, 130, 0.125), (-70, 145, 0.125)),
        *((63, 43, 0.25), (120, -130, 0.125), (70, -145, 0.125)),
    ),
    "PRO": ((-63, -43, 0.35), (-70, 145, 0.65)),
}
SHARPNESS = 6.0  # of the von Mises distributions: a width of 23°
ANYWHERE = 1e-4


def place(a: Floats, b: Floats, c: Floats, distance: float, angle: float, dihedral: float) -> Floats:
    """Return points (F, 3) at a distance from c, an angle to b and a dihedral to a, each (F, 3); radians."""
    axis = _unit(c - b)
    normal = _across(b - a, axis)
    inward = np.cross(normal, axis)
    return np.asarray(
        c
        + distance
        * (
            -np.cos(angle) * axis
            + np.sin(angle) * np.cos(dihedral) * inward
            + np.sin(angle) * np.sin(dihedral) * normal
        )
    )


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _across(vectors: Floats, axes: Floats) -> Floats:
    """Return unit vectors (F, 3) across both; where they lie on a line any direction across it serves."""
    found = np.cross(vectors, axes)
    flat = np.linalg.norm(found, axis=-1) < FLAT
    found[flat] = np.cross(np.eye(3)[np.abs(axes[flat]).argmin(-1)], axes[flat])
    return _unit(found)


def _peptide(omega: float, ca_c_n: float, c_n_ca: float) -> Floats:
    """Return C, O and N of a peptide in its plane, (3, 2): along the axis between the Cα, and to the side of C.

    C and O are measured from the first Cα, N from the second.
    """
    ca, c = np.zeros((1, 3)), np.array([[CA_C, 0.0, 0.0]])
    away = np.array([[0.0, 1.0, 0.0]])
    n = place(away, ca, c, C_N, ca_c_n, 0.0)
    o = place(away, ca, c, C_O, CA_C_O, np.pi)
    second = place(ca, c, n, N_CA, c_n_ca, omega)
    axis = _unit(second - ca)
    side = _unit(c - (c * axis).sum() * axis)
    points = np.concatenate([c - ca, o - ca, n - second])
    return np.stack([points @ axis[0], points @ side[0]], axis=1)


def rebuild_backbone(alphas: Floats, residues: tuple[str, ...]) -> Floats:
    """Return N, Cα, C and O of a chain from its Cα.

    Parameters
    ----------
    alphas : ndarray, shape (F, N, 3)
        In Å, of one chain without gaps.
    residues : tuple of str
        Names of its N residues; glycine and proline differ from the others.

    Returns
    -------
    ndarray, shape (F, N, 4, 3)

    Raises
    ------
    InputError
        If there are fewer than three residues.
    """
    if alphas.shape[1] < 3:
        raise InputError(f"a backbone is rebuilt from at least three Cα beads of a chain, not {alphas.shape[1]}")
    parts = [_rebuild(alphas[start : start + CHUNK].astype(float), residues) for start in range(0, len(alphas), CHUNK)]
    return np.concatenate(parts)


def _rebuild(alphas: Floats, residues: tuple[str, ...]) -> Floats:
    frames, n = alphas.shape[:2]
    # A Cα before the first and one after the last, in an extended chain, carry the planes of the ends.
    before = place(alphas[:, 2], alphas[:, 1], alphas[:, 0], 3.8, np.radians(120), np.pi)
    after = place(alphas[:, -3], alphas[:, -2], alphas[:, -1], 3.8, np.radians(120), np.pi)
    chain = np.concatenate([before[:, None], alphas, after[:, None]], axis=1)
    last = len(residues) + 1
    planes = [
        _planes(chain[:, i], chain[:, i + 1], chain[:, max(i - 1, 0)], chain[:, min(i + 2, last)]) for i in range(last)
    ]
    chosen = _best_turns(planes, chain, residues)
    rows = np.arange(frames)
    built = np.empty((frames, n, 4, 3))
    for residue in range(n):
        built[:, residue, 0] = planes[residue][rows, chosen[:, residue], 2]
        built[:, residue, 1] = alphas[:, residue]
        built[:, residue, 2:] = planes[residue + 1][rows, chosen[:, residue + 1], :2]
    return built


def _planes(first: Floats, second: Floats, previous: Floats, following: Floats) -> Floats:
    """Return C, O and N of the peptide between two Cα (F, 3) at every turn: shape (F, turns, 3, 3)."""
    axis = _unit(second - first)
    length = np.linalg.norm(second - first, axis=-1)
    u = -_across(following - previous, axis)
    w = np.cross(axis, u)
    turns = 2 * np.pi * np.arange(TURNS) / TURNS
    sides = u[:, None] * np.cos(turns)[:, None] + w[:, None] * np.sin(turns)[:, None]
    shapes = np.where((length < CIS)[:, None, None], _peptide(0.0, *CIS_ANGLES), _peptide(np.pi, CA_C_N, C_N_CA))
    origins = np.stack([first, first, second], axis=1)
    along = origins + shapes[:, :, :1] * axis[:, None]
    return np.asarray(along[:, None] + shapes[:, None, :, 1:] * sides[:, :, None])


def _best_turns(planes: list[Floats], chain: Floats, residues: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the turn of every plane that makes the sum over residues least: shape (F, planes)."""
    cost = np.zeros(planes[0].shape[:2])
    came_from = []
    for residue, name in enumerate(residues):
        total = cost[:, :, None] + _costs(planes[residue], planes[residue + 1], chain[:, residue + 1], name)
        came_from.append(total.argmin(1))
        cost = total.min(1)
    turns = [cost.argmin(1)]
    rows = np.arange(len(cost))
    for choices in reversed(came_from):
        turns.append(choices[rows, turns[-1]])
    return np.stack(turns[::-1], axis=1)


def _costs(one: Floats, other: Floats, alpha: Floats, name: str) -> Floats:
    """Return the cost in kT of the turns of the planes before and after a Cα: shape (F, turns, turns)."""
    before_c, n = (one[:, :, None, atom] - alpha[:, None, None] for atom in (0, 2))
    c, after_n = (other[:, None, :, atom] - alpha[:, None, None] for atom in (0, 2))
    cosine = (_unit(n) * _unit(c)).sum(-1)
    tau = np.arccos(np.clip(cosine, -1, 1))
    phi, psi = _dihedral(before_c, n, c), _dihedral(after_n, c, n)
    density = np.full(phi.shape, ANYWHERE)
    for phi0, psi0, share in REGIONS.get(name, REGIONS["ALA"]):
        density += share * np.exp(SHARPNESS * (np.cos(phi - np.radians(phi0)) + np.cos(psi - np.radians(psi0)) - 2))
    return np.asarray((tau - TAU) ** 2 / (2 * TAU_STD**2) - np.log(density))


def _dihedral(far: Floats, near: Floats, other: Floats) -> Floats:
    """Return the dihedral far–near–Cα–other with Cα at the origin; vectors broadcast."""
    first, axis = near - far, -near
    normal, second = np.cross(first, axis), np.cross(axis, other)
    sine = (np.cross(normal, second) * _unit(axis)).sum(-1)
    return np.asarray(np.arctan2(sine, (normal * second).sum(-1)))
