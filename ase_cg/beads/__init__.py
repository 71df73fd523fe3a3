"""Beads: which atoms they stand for, how they are connected, and how they appear in ASE."""
