"""`from pipeline import load_model`: light to import, and clear about what is not there."""

import subprocess
import sys

import pytest

from pipeline import load_model
from pipeline.errors import ConfigError, ModelError


def test_importing_it_loads_nothing():
    script = (
        "import sys; from pipeline import load_model; print(len({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "0\n"


def test_without_a_registered_model_it_says_so_and_makes_nothing(tmp_path):
    with pytest.raises(ModelError, match="no model is registered here yet"):
        load_model(workspace=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no version of a registered model"):
        load_model("a/b/c", workspace=str(tmp_path))
