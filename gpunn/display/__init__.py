"""Draw figures and HTML tables in one style, for all packages above."""
