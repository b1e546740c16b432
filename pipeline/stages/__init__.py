"""The four stages, one function each."""
