"""Training: recipes, the objective, and the trainer."""
