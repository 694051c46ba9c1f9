"""Search the best settings of an experiment by trials of Optuna."""
