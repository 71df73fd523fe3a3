"""Trained models, ready to load by name; each with a card."""
