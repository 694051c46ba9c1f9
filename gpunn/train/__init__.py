"""Training: steps, records, optimizers, and what is watched on the way."""
