"""Exporting: a registered model as files that work where seqpipe is not."""
