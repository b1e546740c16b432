"""What a run is made of: one frozen, typed `RunConfig`, merged once and validated once."""
