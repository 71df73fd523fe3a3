"""Simulation: integrators, one molecule through ASE, many replicas at once, and their trajectories."""
