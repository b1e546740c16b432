"""Serving: a registered model answers over HTTP, to programs and to people."""
