import pytest

from pipeline.progress import SilentReporter
from pipeline.tracking.journal import FILE_NAME, read
from pipeline.training import monitor
from pipeline.training.checkpoint import Progress
from pipeline.training.monitor import Monitor, system_metrics
from tuning.machine import Machine


class FakeJournal:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def metrics(self, values, step) -> None:
        assert values["system/process_tree_memory_megabytes"] > 0
        self.steps.append(step)


@pytest.fixture
def clock(monkeypatch):
    """Time, which the test moves on, and the memory that is held."""

    class Clock:
        now = 1000.0
        memory_mb = 100.0

    monkeypatch.setattr(monitor.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(monitor, "tree_memory_mb", lambda pid: Clock.memory_mb)
    return Clock


def test_everything_is_due_at_its_own_interval(clock):
    journal, reporter, reports = FakeJournal(), SilentReporter(), []
    reporter.training = reports.append
    watch = Monitor(epochs=2, steps=400, journal=journal, reporter=reporter)
    progress = Progress(seen=8, epoch_s=1.0)
    for step in range(1, 171):
        progress.step, clock.memory_mb = step, 100.0 + step
        watch.between_steps(progress)
        clock.now += 0.125
    assert [report.step for report in reports] == list(range(1, 171, 2))  # every 0.25 s
    assert [report.memory_mb for report in reports][:9] == [101] * 8 + [117]  # every 2 s
    assert journal.steps == [81, 161]  # every 10 s
    assert progress.peak_memory_mb == 261


def test_the_peak_does_not_fall(clock):
    watch = Monitor(1, 10, FakeJournal(), SilentReporter())
    progress = Progress(step=1, seen=8, epoch_s=1.0, peak_memory_mb=500.0)
    watch.between_steps(progress)
    assert progress.peak_memory_mb == 500


def test_a_report_has_the_figures_of_the_running_epoch_and_the_time_that_is_left(clock):
    reporter, reports = SilentReporter(), []
    reporter.training = reports.append
    watch = Monitor(epochs=4, steps=100, journal=FakeJournal(), reporter=reporter)
    watch.validation_s = 3.0
    watch.between_steps(Progress(epoch=1, step=30, loss_sum=20.0, correct=10, seen=40, epoch_s=5.0, steps_s=25.0))
    (report,) = reports
    assert (report.epoch, report.epochs, report.step, report.steps) == (2, 4, 30, 100)
    assert (report.loss, report.accuracy, report.images_per_s) == (0.5, 0.25, 8.0)
    assert report.remaining_s == 70 * 1.0 + 3 * 3.0


def test_system_metrics_are_shares_of_the_machine(monkeypatch):
    monkeypatch.setattr(monitor.machine, "this_machine", lambda: Machine(1000, 250, 1.0))
    monkeypatch.setattr(monitor.psutil, "cpu_percent", lambda: 40.0)
    assert system_metrics(7.0) == {
        "system/cpu_utilization_percentage": 40.0,
        "system/system_memory_usage_percentage": 75.0,
        "system/process_tree_memory_megabytes": 7.0,
    }


def test_progress_is_reported_between_steps(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.monitor.REPORT_EVERY_S", 0.0)
    reports = []
    bench.reporter.training = reports.append
    bench.fit(tmp_path)
    assert [(one.epoch, one.step) for one in reports] == [(1 + step // 3, step + 1) for step in range(9)]
    assert {(one.epochs, one.steps) for one in reports} == {(3, 9)}
    assert reports[0].remaining_s > reports[-1].remaining_s > 0  # one validation is still to come
    assert reports[0].memory_mb > 10


def test_system_figures_are_sampled_with_the_step(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.monitor.SYSTEM_METRICS_EVERY_S", 0.0)
    bench.with_config(epochs=1).fit(tmp_path)
    sampled = [e for e in read(tmp_path / FILE_NAME) if "system/cpu_utilization_percentage" in e.content["values"]]
    assert [event.content["step"] for event in sampled] == [1, 2, 3]
