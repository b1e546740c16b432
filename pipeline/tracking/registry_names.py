"""Names in the model registry: aliases and tags of versions, and a file that lies with each."""

CHAMPION = "champion"
CHALLENGER = "challenger"

REGISTER_KEY_TAG = "seqpipe.register_key"
RUN_KEY_TAG = "run_key"
ACCURACY_TAG = "test_accuracy"
TEST_HASH_TAG = "test_hash"
DATA_HASH_TAG = "data_hash"
NOT_COMPARED_TAG = "not_compared"
PARAMETERS_TAG = "parameters"
LATENCY_TAG = "latency_ms"
LATENCY_MACHINE_TAG = "latency_machine"
"""What the latency was measured on; only those of the same can be compared."""
PREDICTIONS = "artifacts/predictions.npz"
"""The predictions of the test images, below a version's source."""
DECISION_TAG = "gate_decision"
"""The number of a version's latest decision on its test images; 0 if it was compared with no champion."""
DECIDED_AGAINST_TAG = "gate_champion"
"""The version that it was compared with then."""


def decisions_tag(test_hash: str) -> str:
    """The tag of a registered model that counts the decisions on some test images."""
    return f"gate_decisions_{test_hash[:16]}"
