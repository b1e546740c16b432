import dataclasses
import json
import re

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError, MemoryCapError
from pipeline.progress import SilentReporter
from pipeline.training import memory_plan, numerics_file
from pipeline.training.numerics import Numerics
from pipeline.training.numerics_file import FILE_NAME, in_words, numerics_of
from sequencer_models.capabilities import this_machine
from tuning.machine import Machine

HERE = Numerics("cpu", "bf16", 2, "native 0123", "convolution", 128, "2.13", "Some CPU", "gcc 14", "bf16")
EAGER = Numerics("cpu", "fp32", 1, "eager", "matmul", 128, "2.13", "Some CPU")


class Reports(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def reports():
    return Reports()


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
    monkeypatch.setattr(numerics_file.machine, "this_machine", lambda: Machine(10**9, 10**6, 1.0))
    return Resolved


def config_with(*settings: str):
    return resolve("small", None, list(settings), {})


def start(folder, **changes) -> Numerics:
    """The numerics that a training in `folder` was started with."""
    numerics = dataclasses.replace(HERE, **changes)
    (folder / FILE_NAME).write_text(json.dumps(numerics.to_json()))
    return numerics


def test_the_first_call_chooses_and_later_ones_read(machine, tmp_path, reports):
    assert numerics_of(config_with(), 4, tmp_path, reports) == HERE
    assert Numerics.from_json(json.loads((tmp_path / FILE_NAME).read_bytes())) == HERE
    machine.numerics = dataclasses.replace(HERE, threads=4, micro_batch_size=64, linear="matmul")
    assert numerics_of(config_with(), 4, tmp_path, reports) == HERE
    assert not reports.warnings


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"device": "cpu"}'])
def test_a_damaged_file_is_chosen_again(machine, tmp_path, reports, content):
    (tmp_path / FILE_NAME).write_text(content)
    assert numerics_of(config_with(), 4, tmp_path, reports) == HERE
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
        ("micro_batch_size=5", "micro_batch_size 128"),
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


TINY = ("model.dims=[32,64]", "model.depths=[1,1]")


def container_of(mb: float):
    return lambda: Machine(int(mb * 1e6), int((mb - 100) * 1e6), 1.0, memory_limit_bytes=int(mb * 1e6))


def test_a_containers_limit_sets_the_images_at_once_as_a_cap_does(machine, tmp_path, monkeypatch):
    machine.numerics = EAGER
    for module in (numerics_file, memory_plan):
        monkeypatch.setattr(module, "tree_memory_mb", lambda pid: 100.0)
    config = config_with(*TINY)
    found = {}
    for mb in (500, 550, 100_000):
        monkeypatch.setattr(numerics_file.machine, "this_machine", container_of(mb))
        (tmp_path / str(mb)).mkdir()
        try:
            found[mb] = numerics_file.numerics_of(config, 4, tmp_path / str(mb), SilentReporter()).micro_batch_size
        except MemoryCapError as error:
            found[mb] = str(error)
    assert re.match(r"500 MB are too few.*\nGive it as many \(the container's limit\)", found[500])
    assert 1 <= found[550] < config.train.batch_size == found[100_000]


def test_where_no_container_limits_it_the_whole_batch_is_held(machine, tmp_path):
    machine.numerics = EAGER
    config = config_with(*TINY)
    found = numerics_file.numerics_of(config, 4, tmp_path, SilentReporter())
    assert found.micro_batch_size == config.train.batch_size


def test_a_cap_sets_the_images_at_once_unless_the_config_does(machine, tmp_path, reports, monkeypatch):
    monkeypatch.setattr(memory_plan, "micro_batch_size", lambda *given, advice: 32)
    machine.numerics = EAGER
    capped = config_with(*TINY, "compute.max_memory_mb=2000")
    assert numerics_of(capped, 4, tmp_path, reports).micro_batch_size == 32
    assert reports.notes == ["32 images at once, to stay within 2000 MB"]
    (tmp_path / "chosen").mkdir()
    chosen = config_with("compute.max_memory_mb=2000", "compute.micro_batch_size=128")
    assert numerics_of(chosen, 4, tmp_path / "chosen", reports).micro_batch_size == 128
