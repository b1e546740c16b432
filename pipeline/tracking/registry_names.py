"""Aliases and tags of versions in the model registry."""

CHAMPION = "champion"
CHALLENGER = "challenger"

REGISTER_KEY_TAG = "seqpipe.register_key"
RUN_KEY_TAG = "run_key"
ACCURACY_TAG = "test_accuracy"
TEST_HASH_TAG = "test_hash"
DATA_HASH_TAG = "data_hash"
NOT_COMPARED_TAG = "not_compared"
