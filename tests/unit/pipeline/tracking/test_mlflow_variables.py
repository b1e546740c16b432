from pipeline.tracking.mlflow_variables import QUIET, quiet


def test_what_the_user_has_set_stays_and_the_rest_is_set():
    environ = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "9"}
    quiet(environ)
    assert environ == {**QUIET, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "9"}
