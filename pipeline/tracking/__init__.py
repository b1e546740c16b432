"""Tracking: runs and models in MLflow. The only room that imports mlflow."""
