"""`seqpipe tune`: what is varied, what a trial runs, where a search is kept, and its runs in MLflow."""
