import dataclasses
import json

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError, MemoryCapError
from pipeline.training import memory_limit, memory_plan, numerics_file
from pipeline.training.memory_forecast import Line, StepMemory, TrainingMemory
from pipeline.training.numerics import Numerics
from pipeline.training.numerics_file import FILE_NAME, in_words, numerics_of
from sequencer_models.capabilities import this_machine
from tuning.machine import Machine

HERE = Numerics("cpu", "bf16", 2, "native 0123", "convolution", 128, "2.13", "Some CPU", "gcc 14", "bf16")
CHOSEN = dataclasses.replace(HERE, activation_checkpointing=False)
MEMORY = TrainingMemory(
    5.0,
    StepMemory((Line(0.0, 10.0),), (Line(0.0, 1.0),)),
    StepMemory((Line(0.0, 4.0),), (Line(0.0, 1.0),)),
    1e9,
)
"""Where there is memory for the whole batch unless a test says otherwise."""


@pytest.fixture
def reports(recorder):
    return recorder


@pytest.fixture
def machine(monkeypatch):
    """What this machine resolves to; `requests` has the settings that it was asked with."""

    class Resolved:
        numerics: Numerics | MachineUnfitError = HERE
        requests: list = []  # noqa: RUF012

    def resolved(compute, batch_size):
        Resolved.requests.append(compute)
        if isinstance(Resolved.numerics, MachineUnfitError):
            raise Resolved.numerics
        return Resolved.numerics

    monkeypatch.setattr(numerics_file.resolve_numerics, "resolve", resolved)
    monkeypatch.setattr(memory_limit.machine, "this_machine", lambda: Machine(10**12, 10**12, 1.0))
    monkeypatch.setattr(memory_plan, "memory_of", lambda config, classes, numerics: MEMORY)
    monkeypatch.setattr(memory_plan, "base_mb", lambda mlflow: 0.0)
    return Resolved


def config_with(*settings: str):
    return resolve("small", None, list(settings), {})


def start(folder, **changes) -> Numerics:
    """The numerics that a training in `folder` was started with."""
    numerics = dataclasses.replace(HERE, **changes)
    (folder / FILE_NAME).write_text(json.dumps(numerics.to_json()))
    return numerics


def test_the_first_call_chooses_and_later_ones_read(machine, tmp_path, reports):
    assert numerics_of(config_with(), 4, tmp_path, reports) == CHOSEN
    assert Numerics.from_json(json.loads((tmp_path / FILE_NAME).read_bytes())) == CHOSEN
    machine.numerics = dataclasses.replace(HERE, threads=4, micro_batch_size=64, linear="matmul")
    assert numerics_of(config_with(), 4, tmp_path, reports) == CHOSEN
    assert not reports.warnings


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"device": "cpu"}'])
def test_a_damaged_file_is_chosen_again(machine, tmp_path, reports, content):
    (tmp_path / FILE_NAME).write_text(content)
    assert numerics_of(config_with(), 4, tmp_path, reports) == CHOSEN
    assert json.loads((tmp_path / FILE_NAME).read_bytes())


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("torch", "torch"),
        ("cpu", "processor"),
        ("kernel", "LSTM kernel"),
        ("lstm_precision", "precision of the LSTMs"),
    ],
)
def test_a_resume_warns_of_what_changes_the_bits(machine, tmp_path, reports, field, what):
    kept = start(tmp_path, **{field: "another"})
    assert numerics_of(config_with(), 4, tmp_path, reports) == kept
    now = getattr(HERE, field)
    assert reports.warnings == [
        f"started with the {what} another, going on with {now}: the weights will not be the same bit for bit"
    ]


def test_what_an_older_release_did_not_record_is_no_change(machine, tmp_path, reports):
    start(tmp_path, lstm_precision=None, kernel_compiler=None)
    numerics_of(config_with(), 4, tmp_path, reports)
    assert not reports.warnings


@pytest.mark.parametrize(
    ("setting", "ignored"),
    [
        ("threads=3", "threads 2"),
        ("micro_batch_size=129", "micro_batch_size 128"),
        ("kernel=eager", "kernel native 0123"),
        ("device=cuda", "device cpu"),
        ("threads=2", None),
        ("micro_batch_size=128", None),
        ("kernel=native", None),
        ("device=cpu", None),
    ],
)
def test_a_resume_warns_of_settings_that_it_ignores(machine, tmp_path, reports, setting, ignored):
    start(tmp_path)
    numerics_of(config_with(f"compute.{setting}"), 4, tmp_path, reports)
    expected = f"this training was started with {ignored} and goes on so; --fresh starts it again"
    assert reports.warnings == ([expected] if ignored else [])


def test_a_resume_holds_fewer_images_at_once_if_asked_as_the_advice_of_a_full_memory_says(machine, tmp_path, reports):
    start(tmp_path)
    assert numerics_of(config_with("compute.micro_batch_size=64"), 4, tmp_path, reports).micro_batch_size == 64
    assert reports.warnings == [
        "started with 128 images at once, going on with 64: the weights will not be the same bit for bit"
    ]
    assert numerics_of(config_with(), 4, tmp_path, reports).micro_batch_size == 64, "kept from then on"


def test_a_resume_compares_with_what_the_device_and_kernel_of_the_start_give_here(machine, tmp_path, reports):
    start(tmp_path, device="mps", kernel="eager")
    machine.requests.clear()
    numerics_of(config_with("compute.kernel=native"), 4, tmp_path, reports)
    assert [(asked.device, asked.kernel) for asked in machine.requests] == [("mps", "eager")]


def test_a_training_whose_device_is_gone_is_refused(machine, tmp_path, reports):
    start(tmp_path, device="cuda")
    machine.numerics = MachineUnfitError("no cuda")
    with pytest.raises(MachineUnfitError, match="this training began on cuda, which is not here"):
        numerics_of(config_with(), 4, tmp_path, reports)


def test_the_line_on_what_computes(monkeypatch):
    auto = config_with()
    monkeypatch.setitem(vars(this_machine()), "native_kernel", (None, "no compiler"))
    assert in_words(HERE, auto) == "on cpu in bf16, 2 threads, with the native LSTM kernel, built by gcc 14"
    older = dataclasses.replace(HERE, kernel_compiler=None)
    assert in_words(older, auto) == "on cpu in bf16, 2 threads, with the native LSTM kernel"
    eager = dataclasses.replace(HERE, kernel="eager", kernel_compiler=None)
    assert in_words(eager, config_with("compute.kernel=eager")) == "on cpu in bf16, 2 threads"
    without = ", without the native LSTM kernel, which is faster (no compiler)"
    assert in_words(eager, auto) == f"on cpu in bf16, 2 threads{without}"
    widened = dataclasses.replace(eager, lstm_precision="fp32")
    lstms = ", the LSTMs in fp32 (this processor has none in bf16)"
    assert in_words(widened, auto) == f"on cpu in bf16, 2 threads{lstms}{without}"
    assert in_words(dataclasses.replace(eager, device="cuda"), auto) == "on cuda in bf16, 2 threads"


def container_of(mb: float):
    return lambda: Machine(int(mb * 1e6), int((mb - 100) * 1e6), 1.0, memory_limit_bytes=int(mb * 1e6))


def needed(images: int, checkpointing: bool = False) -> float:
    config = config_with()
    averages = config.train.ema_decay is not None
    return MEMORY.peak_mb(images, 128, checkpointing=checkpointing, averages=averages, base_mb=0.0)


def choice(numerics: Numerics) -> tuple[int, bool | None]:
    return numerics.micro_batch_size, numerics.activation_checkpointing


@pytest.mark.usefixtures("machine")
def test_a_containers_limit_sets_the_images_at_once_as_a_cap_does(tmp_path, reports, monkeypatch):
    monkeypatch.setattr(memory_limit, "tree_memory_mb", lambda pid: 100.0)
    monkeypatch.setattr(memory_limit.machine, "this_machine", container_of(needed(64) + 1))
    assert choice(numerics_of(config_with(), 4, tmp_path, reports)) == (64, False)
    monkeypatch.setattr(memory_limit.machine, "this_machine", container_of(needed(1, True) - 1))
    (tmp_path / "other").mkdir()
    with pytest.raises(MemoryCapError, match=r"MB are too few.*\nGive it as many \(the container's limit\)"):
        numerics_of(config_with(), 4, tmp_path / "other", reports)
    assert not (tmp_path / "other" / FILE_NAME).exists(), "another limit is another choice"


@pytest.mark.usefixtures("machine")
def test_a_cap_sets_the_images_at_once_unless_the_config_does(tmp_path, reports):
    cap = f"compute.max_memory_mb={needed(32)}"
    assert choice(numerics_of(config_with(cap), 4, tmp_path, reports)) == (32, False)
    assert reports.notes == [f"32 images at once, to stay within {needed(32):.0f} MB (--max-memory-mb)"]
    (tmp_path / "chosen").mkdir()
    chosen = config_with(cap, "compute.micro_batch_size=128")
    assert numerics_of(chosen, 4, tmp_path / "chosen", reports) == HERE


@pytest.mark.usefixtures("machine")
def test_a_trial_plans_with_its_own_memory(tmp_path, reports):
    found = numerics_of(config_with(), 4, tmp_path, reports, trial_mb=needed(43))
    assert choice(found) == (43, False)


@pytest.mark.usefixtures("machine")
def test_a_trial_with_no_room_for_an_image_takes_the_least(tmp_path, reports):
    assert choice(numerics_of(config_with(), 4, tmp_path, reports, trial_mb=1.0)) == (1, True)


@pytest.mark.usefixtures("machine")
def test_a_trial_that_hit_its_cap_goes_on_with_half_and_is_halved_once(tmp_path, reports):
    numerics_of(config_with(), 4, tmp_path, reports, trial_mb=needed(43))
    for _ in range(3):  # it is resumed again and again
        found = numerics_of(config_with(), 4, tmp_path, reports, trial_mb=1.0, halvings=1)
        assert (found.micro_batch_size, found.halvings) == (22, 1)
    assert Numerics.from_json(json.loads((tmp_path / FILE_NAME).read_bytes())) == found
    assert numerics_of(config_with(), 4, tmp_path, reports, halvings=2).micro_batch_size == 11


@pytest.mark.usefixtures("machine")
def test_a_trial_that_hit_its_cap_before_its_first_checkpoint_plans_again_and_halves(tmp_path, reports):
    found = numerics_of(config_with(), 4, tmp_path, reports, trial_mb=needed(64), halvings=1)
    assert (found.micro_batch_size, found.halvings) == (32, 1)


@pytest.mark.usefixtures("machine")
def test_a_resume_keeps_what_was_chosen_whatever_memory_there_is_now(tmp_path, reports):
    kept = numerics_of(config_with(), 4, tmp_path, reports, trial_mb=needed(2, checkpointing=True))
    assert choice(kept) == (2, True)
    for words in ({"trial_mb": 1e6}, {"trial_mb": 1.0}, {}):
        assert numerics_of(config_with(), 4, tmp_path, reports, **words) == kept
    assert not reports.warnings


@pytest.mark.usefixtures("machine")
def test_a_training_of_the_previous_release_goes_on_with_what_it_has(tmp_path, reports):
    content = HERE.to_json()
    del content["activation_checkpointing"], content["halvings"]
    before = json.dumps(content | {"micro_batch_size": 77})
    (tmp_path / FILE_NAME).write_text(before)
    found = numerics_of(config_with(), 4, tmp_path, reports, trial_mb=1.0)
    assert (choice(found), found.halvings) == ((77, None), 0)
    assert not found.checkpoints_activations(config_with())
    assert found.checkpoints_activations(config_with("compute.recompute=true"))
    assert (tmp_path / FILE_NAME).read_text() == before, "nothing changed, so nothing is written"
    assert numerics_of(config_with(), 4, tmp_path, reports, halvings=1).micro_batch_size == 39
