"""Residue names that ase-cg knows."""

# The vocabulary of one-bead-per-residue models. Its order decides the atomic numbers of beads in trajectory
# files, so it only ever grows at the end.
RESIDUES = (
    *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE"),
    *("LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
    *("NLE", "HID", "HIE", "HIP", "CYX", "ASH", "GLH", "LYN", "MSE", "CYM"),
)
CAPS = ("ACE", "NME", "NH2")
WATER_AND_IONS = frozenset(
    [
        *("HOH", "WAT", "SOL", "TIP3", "TIP", "T3P", "SPC", "NA", "CL", "K", "NA+", "CL-", "K+"),
        *("SOD", "CLA", "POT", "MG", "CA2", "CAL", "ZN", "ZN2"),
    ]
)
