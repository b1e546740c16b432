"""How a new champion takes the place of the one that is served."""

import asyncio
from types import SimpleNamespace

import pytest
from served import Brightness

from pipeline.errors import ModelError, TrackingError
from pipeline.serving.champion_watch import ChampionWatch
from pipeline.serving.metrics import Metrics
from pipeline.serving.served_model import ServedModel


@pytest.fixture
def world():
    """A registry whose champion can be changed, and a watch over it."""
    models = {number: Brightness(number) for number in "123"}
    world = SimpleNamespace(models=models, champion="1", loads=[], said=[], every_s=0.001, found=0)

    def find():
        world.found += 1
        if isinstance(world.champion, Exception):
            raise world.champion
        return models[world.champion].version

    def load(version):
        world.loads.append(version.number)
        found = models[version.number]
        if isinstance(found, Exception):
            raise found
        return found

    world.find, world.load = find, load
    world.served, world.metrics = ServedModel(models["1"]), Metrics()
    world.watch = ChampionWatch(world, world.served, world.metrics, world.said.append)
    return world


def test_as_long_as_the_champion_stays_nothing_is_loaded(world):
    world.watch.look()
    assert (world.loads, world.said) == ([], [])


def test_a_new_champion_is_tried_and_takes_its_place(world):
    world.champion = "2"
    world.watch.look()
    assert world.served.current() is world.models["2"]
    assert world.models["2"].batches == [1], "it has computed before anybody asks it"
    assert world.said == ["now serving m, version 2 (champion); before it version 1"]
    assert 'seqpipe_model_reloads_total{outcome="taken"} 1.0' in world.metrics.text().decode()


def test_one_that_cannot_be_loaded_is_told_once_and_the_old_one_is_served_on(world):
    broken = ModelError("its weights were altered")
    world.load = lambda version: world.loads.append(version.number) or (_ for _ in ()).throw(broken)
    world.champion = "3"
    world.watch.look()
    world.watch.look()
    assert (world.loads, world.said) == (["3"], ["warning: version 1 is served on: its weights were altered"])
    assert world.served.current() is world.models["1"]
    assert 'seqpipe_model_reloads_total{outcome="refused"} 1.0' in world.metrics.text().decode()


def test_one_whose_files_cannot_be_fetched_now_is_tried_again(world):
    load, world.champion = world.load, "2"
    world.load = lambda version: (_ for _ in ()).throw(TrackingError("the server is down"))
    world.watch.look()
    world.watch.look()
    assert world.said == ["warning: version 1 is served on: the server is down"]
    world.load = load
    world.watch.look()
    assert world.served.current() is world.models["2"]


def test_one_of_other_classes_is_refused(world):
    world.models["2"] = Brightness("2", ("light", "dark"))
    world.champion = "2"
    world.watch.look()
    assert world.served.current() is world.models["1"]
    assert "m, version 2 (champion) has other classes (light, dark) than the model that is served" in world.said[0]


def test_a_registry_that_does_not_answer_is_told_once_and_looked_at_again(world):
    world.champion = TrackingError("the server is down")
    world.watch.look()
    world.watch.look()
    assert world.said == ["warning: no look at the registry: the server is down"]
    world.champion = "2"
    world.watch.look()
    assert world.served.current() is world.models["2"]


def test_it_goes_on_looking_until_it_is_cancelled(world):
    async def follow():
        following = asyncio.create_task(world.watch.run())
        while world.found < 3:
            await asyncio.sleep(0.001)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    asyncio.run(follow())
