"""Inference: a registered model classifies image files that somebody has."""
