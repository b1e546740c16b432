import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError
from pipeline.training import resolve_numerics
from pipeline.training.warm_up import warm_up


def test_it_resolves_as_the_training_will(monkeypatch):
    asked = []
    monkeypatch.setattr(resolve_numerics, "resolve", lambda compute, batch_size: asked.append((compute, batch_size)))
    config = resolve("small", None, ["compute.threads=3", "train.batch_size=32"], {})
    warm_up(config)
    assert asked == [(config.compute, 32)]


def test_a_machine_that_cannot_train_it_is_an_error(monkeypatch):
    def unfit(compute, batch_size):
        raise MachineUnfitError("no cuda")

    monkeypatch.setattr(resolve_numerics, "resolve", unfit)
    with pytest.raises(MachineUnfitError):
        warm_up(resolve("small", None, [], {}))
