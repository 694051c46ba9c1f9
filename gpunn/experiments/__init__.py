"""Train experiments and recipes in run folders, resume them, and use their networks."""
