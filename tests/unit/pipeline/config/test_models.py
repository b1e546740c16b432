"""A model declared in one file is known everywhere, and the configs of the existing models stay the same."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from config_files import forget_default_recipe

from pipeline.config.keys import to_yaml
from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError
from pipeline.stages import train
from pipeline.workspace.fingerprints import canonical_json

REPOSITORY = Path(__file__).parents[4]
READ_BY_TRAIN = {
    "small": "ab7b6c60b8e99ec4b6aa23ba4b993ebd88a86d3e7e5d0df8f92613a52c717998",
    "medium": "e44cc93170548907bfb509b2b80dfdce33a0e0ac21b04eb15979119ee77befc3",
    "vanilla": "9bc6f52d5e25ea4a7a1937b81e8f9d4d8761ba51d11bcd8e00047a2b59c02fdf",
    "notebook-medium.yaml": "6c237b99d592687b88563720b0fdf5e86e1a4c2634254c6352e44ee944849f8d",
    "notebook-small.yaml": "0e665f8f040c9f1148cc2d0b3f91375ce5ed1c342742c919989eecc01599092e",
    "notebook-vanilla.yaml": "a34c81ad1822b6d569c43d65b64d35382ab61584f4ce31ac041c862b28621fb9",
    "searched-medium.yaml": "d6b1c2022fe7023b0d2001ca676525a4d110286a32923f07fc6d368fdf2636c1",
}
"""Recorded once: with another hash, no existing trained model would be up to date."""

ADDED = '''
"""A model in one file, as somebody would add it."""
from dataclasses import dataclass
from typing import Annotated, Literal

from sequencer_models.model_spec import ModelSpec, Setting, check_settings


@dataclass(frozen=True)
class LinearArchitecture:
    """A linear classifier, behind one hidden layer."""

    classes: int
    hidden: Annotated[int, Setting("Hidden units.", ge=1, le=64)]
    activation: Annotated[Literal["relu", "gelu"], Setting("The non-linearity.")] = "relu"
    pixels: int = 3 * 32 * 32

    def __post_init__(self):
        check_settings(self)


def network(architecture):
    from torch import nn

    activation = nn.ReLU() if architecture.activation == "relu" else nn.GELU()
    hidden = nn.Linear(architecture.pixels, architecture.hidden)
    return nn.Sequential(nn.Flatten(), hidden, activation, nn.Linear(architecture.hidden, architecture.classes))


LINEAR = ModelSpec(
    name="linear",
    summary="one hidden layer",
    architecture=LinearArchitecture,
    network="linear:network",
    own_values={"hidden": 12},
    search_space={"hidden": {"choice": [8, 12]}},
)
'''
USED = """
import io, json, sys
from pathlib import Path
from sequencer_models import catalog
from linear import LINEAR
catalog.MODELS[LINEAR.name] = LINEAR  # the one line

import numpy as np
from pipeline.cli.options import Model
from pipeline.config.keys import known_keys
from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.published import ModelResult, comparison_rows
from pipeline.search.space import space_for

def refusal(*sets):
    try:
        resolve("linear", sets=sets)
    except ConfigError as error:
        return str(error)

config = resolve("linear", sets=["model.activation=gelu"])
result = ModelResult("linear", 0.5, 0.4, 0.6, 1.0, 4000, "cifar10", ("airplane", "automobile", "bird", "cat"), 1.0)
found = {
    "choices": [each.value for each in Model],
    "model": config.model.model_dump(),
    "keys": [key for key in known_keys("linear") if key.startswith("model.")],
    "described": RunConfig.model_json_schema()["$defs"]["LinearConfig"],
    "refusals": [refusal("model.hidden=65"), refusal("model.hiden=1"), refusal("compute.recompute=true")],
    "space": space_for(config).to_json(),
    "published": comparison_rows([result])[0].reason,
    "torch": "torch" in sys.modules,
}

import torch
from pipeline.data.prepared import PreparedData
from pipeline.progress import SilentReporter
from pipeline.stop import StopToken
from pipeline.training.models import build_model

model = build_model(config, 3)
found["layers"] = [type(layer).__name__ for layer in model]
before = [weight.clone() for weight in model.parameters()]
torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
torch.optim.SGD(model.parameters(), 0.1).step()
found["moved"] = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
print(json.dumps(found))
"""


@pytest.mark.parametrize("name", READ_BY_TRAIN)
def test_the_config_that_a_training_reads_keeps_its_hash(monkeypatch, name):
    if not name.endswith(".yaml"):
        forget_default_recipe(monkeypatch)
    config = resolve(file=REPOSITORY / "configs" / name) if name.endswith(".yaml") else resolve(name)
    assert hashlib.sha256(canonical_json(train.reads(config))).hexdigest() == READ_BY_TRAIN[name]


def test_a_config_shows_its_settings_in_their_order(monkeypatch):
    forget_default_recipe(monkeypatch)
    assert (
        to_yaml(resolve("vanilla"))
        .partition("model:\n")[2]
        .startswith(
            "  name: vanilla\n  sequence: rows\n  hidden: 192\n  layers: 2\n  dropout: 0.1\n"
            "  pooling: mean\n  init: he\n  recurrent_init: uniform\n  forget_bias: 0.0\ntrain:\n"
        )
    )


def test_each_model_has_its_own_values():
    assert resolve("medium").model.dims == (192, 384, 384)
    assert resolve("medium").model.depths == (4, 3, 3)
    assert resolve("vanilla").model.hidden == 192


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_what_is_fixed_in_an_architecture_cannot_be_set(model):
    with pytest.raises(ConfigError, match=r"unknown key model\.image_size"):
        resolve(model, sets=["model.image_size=64"])


def test_a_model_needs_as_many_numbers_as_it_has_levels():
    with pytest.raises(ConfigError, match=r"^config: model.dims needs 2 numbers for small, got 3$"):
        resolve(sets=["model.dims=[8,8,8]"])


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        ("medium", "dims=[8,8,16]", "config: model: dims are (8, 8, 16), but only level 2 changes the width: "),
        ("small", "whitened=true", "config: model: whitened is True, but stem patch has no such convolution: "),
        ("small", "stem_width=8", "config: model: stem_width is 8, but stem patch has no such convolution: "),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_before_anything_starts(model, setting, message):
    with pytest.raises(ConfigError) as caught:
        resolve(model, sets=[f"model.{setting}"])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_null_stands_for_a_number_that_follows_from_others():
    assert resolve(sets=["model.stem=deep"]).model.stem_width is None
    assert resolve(sets=["model.stem=deep", "model.stem_width=null"]) == resolve(sets=["model.stem=deep"])
    with pytest.raises(ConfigError, match=r"^config: model\.stem_width = 0: "):
        resolve(sets=["model.stem=deep", "model.stem_width=0"])


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> dict:
    """What a process reports after a model was added to the catalog."""
    folder = tmp_path_factory.mktemp("added")
    (folder / "linear.py").write_text(ADDED)
    environ = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", USED], env=environ, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_added_model_can_be_chosen_configured_and_described(added):
    assert added["choices"] == [*MODEL_NAMES, "linear"]
    assert added["model"] == {"name": "linear", "hidden": 12, "activation": "gelu"}
    assert added["keys"] == ["model.name", "model.hidden", "model.activation"]
    assert added["described"]["description"] == "A linear classifier, behind one hidden layer."
    assert added["described"]["properties"]["hidden"] | {"title": ""} == {
        "description": "Hidden units.", "maximum": 64, "minimum": 1, "title": "", "type": "integer",
    }  # fmt: skip
    too_many, misspelt, recompute = added["refusals"]
    assert too_many.startswith("config: model.hidden = 65: ")
    assert misspelt.startswith("config: unknown key model.hiden; did you mean model.hidden?")
    assert "compute.recompute is for small and medium: linear has no blocks" in recompute


def test_an_added_model_has_a_search_space_and_nothing_published(added):
    assert added["space"]["model.hidden"] == {"choice": [8, 12]}
    assert "train.learning_rate" in added["space"]
    assert added["published"] == "nothing was published for linear"


def test_an_added_model_is_built_and_trains_and_nothing_before_that_imports_torch(added):
    assert not added["torch"]
    assert added["layers"] == ["Flatten", "Linear", "GELU", "Linear"]
    assert added["moved"] == [True] * 4
