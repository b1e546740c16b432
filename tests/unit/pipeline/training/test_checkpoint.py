import dataclasses
import json
import os

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.errors import CheckpointError, WorkspaceError
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import (
    Checkpoint,
    Progress,
    latest,
    load_weights,
    restore,
    save_weights,
    snapshot,
)
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.moving_average import MovingAverage
from pipeline.training.optimizer import Optimizer

NUMERICS = {"device": "cpu", "threads": 1}


class Parts:
    """A model, its optimiser and its average, some steps on."""

    def __init__(self, steps: int) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.optimizer = Optimizer(self.model, TrainConfig(learning_rate=0.1))
        self.average = MovingAverage(self.model, 0.9)
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        self.model(torch.randn(5, 3)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.model, step=0)

    def snapshot(self) -> dict[str, torch.Tensor]:
        return snapshot(self.model, self.optimizer, self.average)


def write(folder, *steps: int, **rest: object) -> None:
    writer = CheckpointWriter(folder, before=lambda: None, durable=lambda offset: None)
    for step in steps:
        writer.submit(
            {"model.weight": torch.full((2,), float(step))}, Progress(step=step), NUMERICS, 10 * step, **rest
        )
    writer.close()


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_weights_optimiser_average_and_random_states_come_back_bit_for_bit(tmp_path):
    before = Parts(steps=3)
    kept = before.snapshot()
    progress = Progress(
        epoch=1, batch=2, step=3, loss_sum=0.1 + 0.2, best_accuracy=1 / 3, rows=[{"epoch": 1, "a": 0.1}]
    )
    writer = CheckpointWriter(tmp_path, before=lambda: None, durable=lambda offset: None)
    writer.submit(kept, progress, NUMERICS, journal_offset=77)
    writer.close()
    for _ in range(2):
        before.step()

    read = latest(tmp_path, pytest.fail)
    assert read.progress == progress
    assert read.journal_offset == 77
    assert json.loads((tmp_path / "step-00000003.json").read_bytes())["numerics"] == NUMERICS
    after = Parts(steps=0)
    torch.manual_seed(99)
    restore(read, after.model, after.optimizer, after.average)
    again = after.snapshot()
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) and again[name].dtype == kept[name].dtype for name in kept)
    for _ in range(2):
        after.step()
    assert all(torch.equal(value, before.snapshot()[name]) for name, value in after.snapshot().items())


def test_a_checkpoint_of_the_first_format_is_gone_on_from(tmp_path):
    before, kept = Parts(steps=3), {}
    numbers = ["0.weight", "3.weight", "0.bias", "1.weight", "1.bias", "3.bias"]  # first those that decay
    for name, value in before.snapshot().items():
        part, _, rest = name.partition(".")
        weight, _, slot = rest.rpartition(".")
        kept[f"optimizer.{numbers.index(weight)}.{slot}" if part == "optimizer" else name] = value
    writer = CheckpointWriter(tmp_path, before=lambda: None, durable=lambda offset: None)
    writer.submit(kept, Progress(step=3), NUMERICS, journal_offset=7)
    writer.close()
    described = tmp_path / "step-00000003.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"format": 1}))
    read = latest(tmp_path, pytest.fail)
    after = Parts(steps=0)
    restore(read, after.model, after.optimizer, after.average)
    assert all(torch.equal(value, before.snapshot()[name]) for name, value in after.snapshot().items())


def test_a_snapshot_takes_the_memory_of_an_earlier_one_as_far_as_that_goes():
    parts = Parts(steps=0)
    earlier = parts.snapshot()  # without the optimiser's state
    parts.step()
    places = {name: tensor.data_ptr() for name, tensor in earlier.items()}
    later, expected = snapshot(parts.model, parts.optimizer, parts.average, into=earlier), parts.snapshot()
    assert later.keys() == expected.keys() > earlier.keys()
    assert all(torch.equal(later[name], expected[name]) for name in expected)
    assert {name: later[name].data_ptr() for name in places} == places


def test_a_snapshot_does_not_change_with_the_training():
    parts = Parts(steps=1)
    kept = parts.snapshot()
    copies = {name: value.clone() for name, value in kept.items()}
    parts.step()
    assert all(torch.equal(kept[name], copies[name]) for name in kept)


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert latest(tmp_path, pytest.fail) is None


def damage_tensors(path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, described: damage_tensors(tensors),
        lambda tensors, described: os.truncate(tensors, 20),
        lambda tensors, described: tensors.unlink(),
        lambda tensors, described: described.write_bytes(b""),
        lambda tensors, described: described.write_bytes(b"[]"),
        lambda tensors, described: described.write_bytes(b"{}"),
        lambda tensors, described: described.write_bytes(b"\0" * 300),
        lambda tensors, described: described.write_text(
            described.read_text().replace('"step": 2', '"step": 2,')[:-30]
        ),
        lambda tensors, described: described.write_text(
            json.dumps(json.loads(described.read_text()) | {"progress": None})
        ),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, damage):
    write(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002.safetensors", tmp_path / "step-00000002.json")
    said = []
    assert latest(tmp_path, said.append).progress.step == 1
    assert len(said) == 1
    assert said[0].startswith("step-00000002: damaged checkpoint")
    assert names_in(tmp_path) == ["step-00000001.json", "step-00000001.safetensors"], "it would count as a kept one"


def test_when_every_checkpoint_is_damaged_it_is_an_error_with_advice(tmp_path):
    write(tmp_path, 1, 2)
    for path in tmp_path.glob("*.safetensors"):
        damage_tensors(path)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints can be read; --fresh"):
        latest(tmp_path, lambda text: None)


def test_a_checkpoint_of_another_format_is_not_passed_over(tmp_path):
    write(tmp_path, 1, 2)
    described = tmp_path / "step-00000002.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"format": 99}))
    with pytest.raises(CheckpointError, match="another version of seqpipe"):
        latest(tmp_path, pytest.fail)


def test_a_full_disk_is_reported_as_one_and_leaves_the_old_weights(tmp_path, monkeypatch):
    path = tmp_path / "best.safetensors"
    save_weights(path, {"a": torch.zeros(2)})

    def full(tensors, beside) -> None:
        beside.write_bytes(b"half of it")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error code: 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(WorkspaceError, match="No space left on device; free some space"):
        save_weights(path, {"a": torch.ones(2)})
    assert torch.equal(load_weights(path)["a"], torch.zeros(2))
    assert names_in(tmp_path) == ["best.safetensors"]


def test_the_error_for_unreadable_weights_names_the_file(tmp_path):
    path = tmp_path / "best.safetensors"
    with pytest.raises(CheckpointError, match=r"best\.safetensors: the weights cannot be read"):
        load_weights(path)
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="--fresh trains again"):
        load_weights(path)


def test_weights_are_replaced_whole_and_their_hash_is_that_of_the_file(tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, {"a": torch.zeros(100)})
    digest = save_weights(path, {"b": torch.ones(2, 3).T})  # not contiguous
    assert torch.equal(load_weights(path)["b"], torch.ones(3, 2))
    assert digest == checkpoints.file_sha256(path)
    assert names_in(tmp_path) == ["best.safetensors"]


def test_every_field_of_the_progress_survives(tmp_path):
    progress = Progress(**{field.name: 3 for field in dataclasses.fields(Progress)} | {"rows": [{"epoch": 1.0}]})
    writer = CheckpointWriter(tmp_path, before=lambda: None, durable=lambda offset: None)
    writer.submit({"model.a": torch.zeros(1)}, progress, NUMERICS, 0)
    writer.close()
    assert latest(tmp_path, pytest.fail).progress == progress


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_weights_follow_the_umask_like_every_other_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        for _ in range(2):
            save_weights(tmp_path / "best.safetensors", {"a": torch.zeros(2)})
            assert (tmp_path / "best.safetensors").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_progress_starts_at_nothing():
    progress = dataclasses.asdict(Progress())
    assert progress.pop("rows") == []
    assert progress.pop("best_accuracy") == -1.0, "below any accuracy"
    assert set(progress.values()) == {0}


@pytest.mark.parametrize(("name", "backend"), [("cuda", torch.cuda), ("mps", torch.backends.mps)])
def test_the_random_state_of_a_device_is_kept_and_restored_where_there_is_one(monkeypatch, name, backend):
    states, device = [], getattr(torch, name)
    monkeypatch.setattr(device, "get_rng_state", lambda: torch.tensor([1, 2], dtype=torch.uint8))
    monkeypatch.setattr(device, "set_rng_state", states.append)
    monkeypatch.setattr(backend, "is_available", lambda: False)
    parts = Parts(steps=1)
    assert f"random.{name}" not in parts.snapshot()
    monkeypatch.setattr(backend, "is_available", lambda: True)
    checkpoint = Checkpoint(Progress(), parts.snapshot(), 0)
    restore(checkpoint, parts.model, parts.optimizer, parts.average)
    assert [state.tolist() for state in states] == [[1, 2]]
    monkeypatch.setattr(backend, "is_available", lambda: False)
    restore(checkpoint, parts.model, parts.optimizer, parts.average)
    assert len(states) == 1
