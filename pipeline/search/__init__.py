"""The product's search: what is varied, what a trial runs, where a search lies, and what MLflow is told of it."""
