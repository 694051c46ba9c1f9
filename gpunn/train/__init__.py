"""Train networks: steps, records, optimizers, callbacks, metrics."""
