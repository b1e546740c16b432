"""One training: loop, optimiser, checkpoints, and the numerics that it runs under."""
