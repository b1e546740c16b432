import pytest
from fake_ray import FakeRay

from tuning.on_ray import attempt, run, store_actor


@pytest.fixture
def ray(monkeypatch):
    """A fake of Ray for everything that would talk to one."""
    fake = FakeRay()
    for module in (attempt, run, store_actor):
        monkeypatch.setattr(module, "ray", fake)
    return fake
