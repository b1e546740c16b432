"""Any function, run under a hard memory cap."""
