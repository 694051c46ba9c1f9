"""A search for the best settings of an experiment: ranges in its file, trials by Optuna, pictures and the best file."""
