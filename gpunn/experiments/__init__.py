"""Runs as folders: experiments, recipes, resuming, results and predictions."""
