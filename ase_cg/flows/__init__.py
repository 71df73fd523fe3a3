"""Generative kernels k(y | z) whose scores become labels: continuous flows."""
