"""Running any function under a hard memory cap."""
