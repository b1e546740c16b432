"""BiLSTM image classifiers: Sequencer2D and a vanilla BiLSTM. Importing this package imports nothing else."""
