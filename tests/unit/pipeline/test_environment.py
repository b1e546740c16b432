import os
import sys
import warnings

import pytest

from pipeline import environment

GONE = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": "/somewhere",
    "GIT_DIR": "/other/.git",
    "GIT_WORK_TREE": "/other",
    "GIT_INDEX_FILE": "/other/index",
    "GIT_CONFIG_COUNT": "1",
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_RUNTIME_ENV_HOOK": "somebody.hook",
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
    "OMP_DYNAMIC": "true",
    "OMP_THREAD_LIMIT": "1",
    "MLFLOW_ENABLE_WORKSPACES": "true",
    "MLFLOW_STATIC_PREFIX": "/mlflow",
    "UVICORN_APP_DIR": ".",
    "TORCH_LOGS": "rubbish",
    "PYTHONWARNINGS": "error",
    "PYTHONINSPECT": "1",
    "HOME": "relative",
    "XDG_CACHE_HOME": "relative",
    "TMPDIR": "relative",
}
KEPT = {
    "MLFLOW_TRACKING_URI": "http://server",
    "MLFLOW_TRACKING_TOKEN": "secret",
    "MLFLOW_WORKSPACE": "team",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "secret",
    "RAY_TLS_CA_CERT": "/ca.pem",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "ACTIVE",
    "CC": "clang",
    "PATH": "/bin",
    "LANG": "de_DE.UTF-8",
}


def test_what_would_break_a_run_is_removed_with_a_reason_and_the_rest_stays():
    environ = GONE | KEPT
    found = environment.clean_variables(environ)
    assert found.keys() == GONE.keys()
    assert all(found.values())
    assert environ == KEPT | environment.FIXED_VALUES


def test_absolute_folders_and_the_users_own_wait_policy_stay():
    environ = {"HOME": "/home/one", "XDG_CACHE_HOME": "/cache", "TMPDIR": "/tmp"}
    assert environment.clean_variables(environ) == {}
    assert environ.items() >= {"HOME": "/home/one", "XDG_CACHE_HOME": "/cache", "TMPDIR": "/tmp"}.items()
    assert environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("entry", ["", ".", "{here}"])
def test_modules_are_not_taken_from_the_working_folder(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = entry.format(here=tmp_path)
    environ = {"PYTHONPATH": os.pathsep.join((entry, "lib", "/opt/lib"))}
    environment.clean_variables(environ)
    assert environ["PYTHONPATH"] == os.pathsep.join((str(tmp_path / "lib"), "/opt/lib"))
    monkeypatch.setattr(environment.os, "environ", {})
    monkeypatch.setattr(sys, "path", [entry, "/opt/lib"])
    environment.clean_process()
    assert sys.path == ["/opt/lib"]


def test_a_source_tree_may_be_run_in_place(monkeypatch):
    monkeypatch.chdir(environment._CODE)
    environ = {"PYTHONPATH": "."}
    environment.clean_variables(environ)
    assert environ["PYTHONPATH"] == str(environment._CODE)


def test_a_deleted_working_folder_takes_relative_entries_off_the_module_path(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(environment.os, "environ", {})
    monkeypatch.setattr(sys, "path", ["", "lib", "/opt/lib"])
    environment.clean_process()
    assert sys.path == ["/opt/lib"]


def test_the_variables_that_were_removed_from_a_process_are_remembered(monkeypatch):
    monkeypatch.setattr(environment, "_removed", {})
    monkeypatch.setattr(environment.os, "environ", {"TORCH_LOGS": "rubbish"})
    environment.clean_process()
    assert environment.removed_variables() == {"TORCH_LOGS": "torch's compiler, which it configures, is not used"}


@pytest.mark.parametrize(("options", "raises"), [(["error"], False), (["error::UserWarning"], False), ([], True)])
def test_a_warning_is_not_turned_into_an_error_by_an_option_of_python(monkeypatch, options, raises):
    monkeypatch.setattr(environment.os, "environ", {})
    monkeypatch.setattr(sys, "warnoptions", list(options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as the option does; without one it was the program itself
        environment.clean_process()
        assert sys.warnoptions == []
        if raises:
            with pytest.raises(UserWarning):
                warnings.warn("x", stacklevel=1)
        else:
            warnings.warn("x", stacklevel=1)


def test_other_options_for_warnings_stay(monkeypatch):
    monkeypatch.setattr(environment.os, "environ", {})
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    environment.clean_process()
    assert sys.warnoptions == ["default"]


def test_the_variables_of_a_user_are_listed_without_passwords_and_unset_ones():
    environ = {
        "MLFLOW_TRACKING_URI": "https://me:secret@server/path",
        "CC": "clang",
        "TMPDIR": "",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PATH": "/bin",
    }
    assert environment.user_variables(environ) == {
        "MLFLOW_TRACKING_URI": ("https://server/path", "where runs are recorded"),
        "CC": ("clang", "the C compiler that is tried first"),
    }
    assert environment.user_variables({"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"][0] == "ACTIVE"
