"""Inference: a model made fast for one topology — tabulated, in a dense layout, exported as one graph."""
