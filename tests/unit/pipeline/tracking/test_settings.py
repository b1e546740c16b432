import sys
from pathlib import Path
from subprocess import run

import pytest
from sqlalchemy.engine import make_url

from pipeline.errors import ConfigError
from pipeline.tracking import addresses
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.sqlite_files import sqlite_path
from pipeline.workspace.paths import Workspace

REPOSITORY = Path(__file__).parents[4]


def load(root: Path, text: str | bytes | None = None, **environ: str) -> mlflow_settings.ResolvedMlflow:
    if text is not None:
        (root / "mlflow.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return mlflow_settings.load(Workspace(root), environ)


def test_without_a_file_runs_go_to_the_workspace(tmp_path):
    settings = load(tmp_path)
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.database == tmp_path / "mlflow.db"
    assert settings.artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert (settings.registry_uri, settings.experiment) == (None, "seqpipe")
    assert settings.model_name("cifar10-all") == "cifar10-all"


def test_the_committed_file_says_the_defaults(tmp_path):
    assert load(tmp_path, (REPOSITORY / "mlflow.yaml").read_bytes()) == load(tmp_path, "")


def test_mlflows_variables_win_over_the_file(tmp_path):
    text = "tracking_uri: http://file:1\nregistry_uri: http://file:2\nexperiment: file\n"
    from_file = load(tmp_path, text, MLFLOW_TRACKING_URI="")
    assert (from_file.tracking_uri, from_file.registry_uri, from_file.experiment) == (
        "http://file:1",
        "http://file:2",
        "file",
    )
    won = load(
        tmp_path,
        text,
        MLFLOW_TRACKING_URI="http://env:1/",
        MLFLOW_REGISTRY_URI="http://env:2",
        MLFLOW_EXPERIMENT_NAME="env",
    )
    assert (won.tracking_uri, won.registry_uri, won.experiment) == ("http://env:1", "http://env:2", "env")
    assert won.is_http
    assert won.artifact_location is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tracking_uri: [", "not valid YAML"),
        (b"experiment: \xff", "not UTF-8"),
        ("- a\n- b", "must be a mapping"),
        ("tracking_url: null", "did you mean tracking_uri?"),
        ("colour: red", "known: tracking_uri, registry_uri, experiment, registered_model"),
        ("experiment: 3", "experiment = 3"),
        ("experiment: ''", "experiment = ''"),
        ("registered_model: 'a/{task}'", "without / and :"),
        ("registered_model: '{data}'", "without / and :"),
        ('registered_model: "Bob\'s {task}"', "quotes"),
        ('registered_model: "{task}?"', "not ?"),
        ("registered_model: '..'", "not .."),
        ('registered_model: "{task!r}"', "not {"),
        ("registered_model: ''", "empty"),
        ("registered_model: ' {task}'", "blank"),
        ('registered_model: "a\\n{task}"', "cannot be shown"),
        (f"registered_model: '{'x' * 200}{{task}}'", "longer than 250"),
        (f"experiment: {'x' * 251}", "longer than 250"),
        ("experiment: '  '", "blank"),
        ('experiment: "a\\tb"', "cannot be shown"),
        ("experiment: '{task}'", "registered_model only"),
        ("tracking_uri: 'http://host:5000 '", "begins or ends with a blank"),
        ("tracking_uri: ' sqlite:///x.db'", "begins or ends with a blank"),
        ("tracking_uri: ''", "empty"),
        ("registry_uri: 'http://ho st:5000'", "registry_uri = 'http://ho st:5000': there is a blank"),
        ("tracking_uri: http://", "names no host"),
        ("tracking_uri: http://:5000", "names no host"),
        ("tracking_uri: http://host:99999", "Port out of range"),
        ("tracking_uri: http://host:x", "Port could not be cast"),
        ("tracking_uri: http://host:0", "port 0"),
        ("tracking_uri: 'http://[::1'", "Invalid IPv6"),
        ("tracking_uri: 'http://host:5000/#/experiments/1'", "leave out what follows http://host:5000/"),
        ("tracking_uri: 'http://me:secret@host:5000/?a=1'", "'http://host:5000/?a=1'"),
        ("tracking_uri: sqlite:///~nobody-of-this-name/x.db", "no such home folder"),
        ("tracking_uri: ftp://host", "no address that MLflow can use"),
        ("tracking_uri: ./mlruns", "no address that MLflow can use"),
        ("tracking_uri: 'file:///tmp/mlruns'", "no address that MLflow can use"),
        ("tracking_uri: 'sqlite:///:memory:'", "names no file"),
        ("tracking_uri: 'sqlite://'", "names no file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "mlflow.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", "http://host:5000 "),
        ("MLFLOW_TRACKING_URI", " "),
        ("MLFLOW_REGISTRY_URI", "http://host:5000\n"),
        ("MLFLOW_EXPERIMENT_NAME", " "),
        ("MLFLOW_EXPERIMENT_NAME", "a\x1bb"),
    ],
)
def test_mlflows_variables_are_checked_as_the_file_is_and_named(tmp_path, variable, value):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **{variable: value})
    assert str(caught.value).startswith(f"{variable} = {value!r}: ")


@pytest.mark.parametrize(
    "name", ["{task}", "100% {task}", "Modèle {task}", "a@b", "a.b-c_d", "(a), b & c", "select * from"]
)
def test_a_name_that_mlflow_can_look_for_is_taken(tmp_path, name):
    from mlflow.utils.search_utils import SearchModelVersionUtils
    from mlflow.utils.validation import _validate_model_name

    settings = load(tmp_path, f"registered_model: '{name}'")
    _validate_model_name(settings.model_name("t"))
    [found] = SearchModelVersionUtils.parse_search_filter(f"name = '{settings.model_name('t')}'")
    assert found["value"] == settings.model_name("t")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("sqlite:///taken/x.db", "taken cannot be written"),
        ("sqlite:///folder", "it is not a file"),
        ("sqlite:///x.db?timeout=soon", "not a valid address"),
        ("postgresql+asyncpg://me:secret@host/db", "'postgresql+asyncpg://host/db' needs the Python package asyncpg"),
        ("mysql+none://host/db", "not a valid address"),
    ],
)
def test_what_an_address_will_be_used_for_is_tried_before_the_work(tmp_path, uri, says):
    (tmp_path / "taken").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError) as caught:
        mlflow_settings.require_usable(load(tmp_path, f"tracking_uri: {uri}"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path):
    for text in ("tracking_uri: sqlite:////proc/nowhere/x.db", "registry_uri: sqlite:////proc/nowhere/x.db"):
        with pytest.raises(ConfigError, match="the folder /proc/nowhere cannot be written"):
            mlflow_settings.require_usable(load(tmp_path, text))


def test_a_new_file_in_a_new_folder_is_usable(tmp_path):
    settings = load(tmp_path, "tracking_uri: sqlite:///deep/er/x.db?timeout=9")
    mlflow_settings.require_usable(settings)
    assert not settings.database.exists()


@pytest.mark.parametrize("uri", ["http://host:5000", "databricks", "sqlite:///x.db"])
def test_a_server_and_a_plain_sqlite_file_need_no_driver(tmp_path, uri, monkeypatch):
    monkeypatch.setattr(addresses, "_require_driver", lambda uri: pytest.fail(uri))
    mlflow_settings.require_usable(load(tmp_path, f"tracking_uri: {uri}"))


def test_a_tilde_in_an_address_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert load(tmp_path, "tracking_uri: sqlite:///~/x.db").database == Path("/home/me/x.db")


def test_a_relative_sqlite_file_lies_in_the_workspace(tmp_path):
    settings = load(tmp_path, "tracking_uri: sqlite:///kept/x.db?timeout=9")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/kept/x.db?timeout=9"
    assert settings.database == tmp_path / "kept/x.db"
    assert settings.artifact_location == (tmp_path / "kept/mlartifacts").as_uri()


@pytest.mark.parametrize("name", ["with space", "grüße", "100% fun", "50%20off", "what?", "a#b"])
def test_any_path_means_the_same_file_to_sqlalchemy(tmp_path, name):
    root = tmp_path / name
    settings = load(root)
    assert make_url(settings.tracking_uri).database == str(root / "mlflow.db")
    assert sqlite_path(settings.tracking_uri) == root / "mlflow.db"


def test_a_password_is_not_in_the_address_that_is_shown(tmp_path):
    settings = load(tmp_path, "tracking_uri: http://me:secret@host:5000")
    assert settings.tracking_uri == "http://me:secret@host:5000"
    assert settings.address == "http://host:5000"


def test_a_task_is_named_by_its_data_set_and_classes():
    assert mlflow_settings.task_name("cifar10", "all") == "cifar10-all"
    assert mlflow_settings.task_name("cifar10", ("airplane", "cat")) == "cifar10-airplane-cat"
    assert mlflow_settings.task_name("a/b:c", ("x y",)) == "a_b_c-x_y"


def test_importing_what_knows_mlflow_does_not_import_it():
    modules = (
        "pipeline.tracking.delivery, pipeline.tracking.registry, pipeline.tracking.server, pipeline.tracking.settings"
    )
    script = f"import sys, {modules}; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert run([sys.executable, "-c", script], cwd=REPOSITORY, check=False).returncode == 0
