"""Evidence before promotion: two models compared on the same images, and the gate. No MLflow and no torch here."""
