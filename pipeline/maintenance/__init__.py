"""Looking after a workspace and the machine: what may go, and what is fit."""
