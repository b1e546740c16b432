"""What every test stands on: threads that sleep while they wait, as the command line sets them."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
