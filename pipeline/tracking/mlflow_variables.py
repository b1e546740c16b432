"""Environment variables that keep MLflow quiet, offline and quick to give up."""

from collections.abc import Mapping, MutableMapping

QUIET: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default retries for four minutes; the journal can wait
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def quiet(environ: MutableMapping[str, str]) -> None:
    """Set the `QUIET` variables that the user has not set; call it before MLflow is imported."""
    for key, value in QUIET.items():
        environ.setdefault(key, value)
