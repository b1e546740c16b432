"""A search over any objective, under memory caps. Importing this package imports nothing else."""
