"""Maintenance of a workspace: what can be removed (gc), and what is wrong (doctor)."""
