"""A cluster of laptops, without Ray: what its nodes know of each other, and what they decide."""
