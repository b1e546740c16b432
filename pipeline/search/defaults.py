"""What a search does unless a user says otherwise. The space that it varies is in `pipeline.search.space`."""

DEFAULT_TRIALS = 30
LEAST_TRIAL_MB = 1500
"""The default memory cap of a trial is what the node can hold, but at least this much where the node has it: fewer
trials run at once rather than with less each. A default small holds 0.8 to 1.1 GB, a medium 1.1 to 1.4."""
