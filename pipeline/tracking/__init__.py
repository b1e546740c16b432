"""What MLflow is told of runs, whenever it can be reached; only here mlflow is imported."""
