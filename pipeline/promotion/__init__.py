"""Evidence before promotion: two models compared on the same images, and the gate that decides. No MLflow, no torch."""
