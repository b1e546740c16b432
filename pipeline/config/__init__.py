"""The config of a run: one frozen, typed `RunConfig`, merged once and validated once."""
