"""Priors: small analytic energy terms fitted to the data, which keep a model where the data live."""
