"""The energy model: priors, backbones, their sum, and its file."""
