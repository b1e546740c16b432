"""`seqpipe models export`: what it says, and its errors before anything is written."""

import pytest
from typer.testing import CliRunner

from pipeline.cli.commands import app
from pipeline.cli.models_export import export
from pipeline.errors import ConfigError, ModelError


@pytest.fixture(autouse=True)
def empty_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.yaml").touch()


def test_8_bits_need_onnx():
    with pytest.raises(ConfigError, match="--int8 is made from the ONNX file: add --format onnx"):
        export(format=["pt2"], int8=True)


def test_without_a_registered_model_it_says_how_to_get_one(tmp_path):
    with pytest.raises(ModelError, match="seqpipe run"):
        export()
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith(".")]


def test_an_unknown_format_is_bad_usage():
    done = CliRunner().invoke(app, ["models", "export", "--format", "tflite"])
    assert done.exit_code == 2
