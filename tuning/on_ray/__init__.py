"""Carrying out a search with Ray; only here ray is imported."""
