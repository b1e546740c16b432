import math

import pytest
from ledgers import end, row

from tuning.errors import LedgerError, LedgerMismatchError
from tuning.ledger import FILE_NAME, EpochReport, Finish, Ledger, read

IDENTITY = {"model": "small", "space": {"x": {"uniform": [0, 1]}}}


def filled(folder):
    ledger = Ledger(folder, IDENTITY)
    ledger.raise_target(5)
    ledger.propose({"x": 0.5}, "default")
    ledger.start(0, "here")
    ledger.report(0, EpochReport(1, 0.25, {"loss": 1.5}, 100.0))
    ledger.finish(0, Finish("completed", 0.25, 120.0, 200, "here", 1, 3.5))
    ledger.propose({"x": 0.75}, "optuna")
    ledger.start(1, "there")
    ledger.report(1, EpochReport(1, math.nan))
    return ledger


def test_what_was_written_is_what_is_read(tmp_path):
    with filled(tmp_path) as written, Ledger(tmp_path, IDENTITY) as again:
        assert again.target == 5
        assert len(again.rows) == 2
        assert again.rows[0] == written.rows[0]
        assert again.rows[0].finish == Finish("completed", 0.25, 120.0, 200, "here", 1, 3.5)
        assert again.rows[1].finish is None
        assert again.rows[1].starts == 1
        assert math.isnan(again.rows[1].reports[0].value)


def test_each_event_is_on_disk_when_it_is_acknowledged(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    filled(tmp_path).close()
    assert len(synced) == len((tmp_path / FILE_NAME).read_text().splitlines()) == 9


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_is_cut_off_and_the_search_goes_on(tmp_path, cut):
    filled(tmp_path).close()
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    with Ledger(tmp_path, IDENTITY) as ledger:
        assert ledger.rows[1].reports == ()
        ledger.report(1, EpochReport(1, 0.5))
    with Ledger(tmp_path, IDENTITY) as ledger:
        assert ledger.rows[1].reports == (EpochReport(1, 0.5),)


def test_damage_before_the_last_line_is_an_error_that_names_it(tmp_path):
    filled(tmp_path).close()
    path = tmp_path / FILE_NAME
    lines = path.read_text().splitlines(keepends=True)
    for bad in (
        "{}\n",
        "\x00\x00\n",
        lines[4][:20] + "\n",
        lines[1].replace("target", "tarjet"),
        lines[2],
        lines[0][:9],
    ):
        path.write_text("".join([*lines[:4], bad, *lines[5:]]))
        with pytest.raises(LedgerError, match=r"line 5 of .* is damaged"):
            Ledger(tmp_path, IDENTITY)
    assert path.read_text().startswith(lines[0])


def test_a_ledger_of_another_search_is_refused_by_what_differs(tmp_path):
    filled(tmp_path).close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(LedgerMismatchError, match='model "small"; asked for: model "medium"') as caught:
        Ledger(tmp_path, IDENTITY | {"model": "medium"})
    assert caught.value.differing == ("model",)
    with pytest.raises(LedgerMismatchError) as caught:
        Ledger(tmp_path, {"model": "small", "data": 1})
    assert caught.value.differing == ("data", "space")
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_ledger_of_another_format_is_refused(tmp_path):
    filled(tmp_path).close()
    path = tmp_path / FILE_NAME
    path.write_text(path.read_text().replace('"version":1', '"version":2', 1))
    with pytest.raises(LedgerMismatchError, match="another version"):
        Ledger(tmp_path, IDENTITY)


def test_the_name_of_a_metric_is_held_once_for_all_reports(tmp_path):
    with filled(tmp_path) as ledger:
        ledger.report(1, EpochReport(2, 0.5, {"loss": 0.5}))
        names = [id(name) for row in ledger.rows for report in row.reports for name in report.metrics]
    assert len(names) == 2
    assert len(set(names)) == 1


def test_an_epoch_reported_again_replaces_the_first_report(tmp_path):
    with filled(tmp_path) as ledger:
        ledger.report(1, EpochReport(2, 0.5))
        ledger.report(1, EpochReport(1, 0.125))
        assert ledger.rows[1].reports == (EpochReport(1, 0.125), EpochReport(2, 0.5))
        ledger.report(1, EpochReport(2, 0.75))
        assert ledger.rows[1].reports == (EpochReport(1, 0.125), EpochReport(2, 0.75))
        assert ledger.rows[1].last_epoch == 2


def test_the_target_is_only_ever_raised(tmp_path):
    with filled(tmp_path) as ledger:
        ledger.raise_target(3)
        assert ledger.target == 5
        ledger.raise_target(8)
    with Ledger(tmp_path, IDENTITY) as ledger:
        assert ledger.target == 8


def test_a_reopened_row_is_to_be_run_again(tmp_path):
    with filled(tmp_path) as ledger:
        ledger.reopen(0)
        assert ledger.rows[0].finish is None
        assert ledger.rows[0].starts == 0


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot write"):
        Ledger(tmp_path / "file" / "search", IDENTITY)


def test_the_cap_and_an_exhausted_space_are_remembered(tmp_path):
    with Ledger(tmp_path, IDENTITY) as ledger:
        assert (ledger.cap_mb, ledger.is_exhausted) == (None, False)
        for cap_mb, trials in ((900, 3), (900, 4), (700, 2)):
            ledger.decide_cap(cap_mb, trials)
        ledger.exhaust()
        ledger.exhaust()
    assert len((tmp_path / FILE_NAME).read_text().splitlines()) == 4, "what changes nothing is not written"
    with Ledger(tmp_path, IDENTITY) as ledger:
        assert (ledger.cap_mb, ledger.cap_trials, ledger.is_exhausted) == (700, 2, True)


def test_how_many_trials_fitted_is_of_the_time_when_the_cap_was_decided(tmp_path):
    with Ledger(tmp_path, IDENTITY) as ledger:
        ledger.decide_cap(900, 3)
        ledger.decide_cap(900, 5)
        assert ledger.cap_trials == 3
        ledger.apply({"event": "cap", "mb": 800})  # as earlier versions wrote it
        assert (ledger.cap_mb, ledger.cap_trials) == (800, None)


def test_what_a_trial_computes_with_is_what_it_said_last(tmp_path):
    with filled(tmp_path) as ledger:
        ledger.describe(0, {"precision": "bf16", "kernel": "native"})
        ledger.describe(0, {"precision": "fp32"})
    with Ledger(tmp_path, IDENTITY) as ledger:
        assert ledger.rows[0].facts == {"precision": "fp32"}


def test_a_reopened_row_has_ended_once_already(tmp_path):
    with filled(tmp_path) as ledger:
        assert ledger.rows[0].ends == 1
        assert ledger.reopen(0).ends == 1
        assert ledger.finish(0, Finish("completed", 0.5)).ends == 2


def test_a_disk_that_is_full_is_told_once(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    ledger = filled(tmp_path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LedgerError, match="No space left on device; the search can go on later"), ledger:
        ledger.propose({"x": 0.1}, "random")


def test_another_process_reads_the_contents_while_they_are_written(tmp_path):
    assert read(tmp_path) is None
    with filled(tmp_path) as ledger:
        ledger.decide_cap(900, 2)
        ledger.exhaust()
        contents = read(tmp_path)
        assert contents.identity == IDENTITY
        assert (contents.target, contents.cap_mb, contents.is_exhausted) == (5, 900, True)
        assert repr(contents.rows) == repr(ledger.rows)
        assert contents.finished == 1


def test_reading_skips_what_is_torn_or_damaged_and_changes_nothing(tmp_path):
    filled(tmp_path).close()
    path = tmp_path / FILE_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join(
        [lines[0], b"\x00\n", b"[]\n", b'{"event":"finished","row":7}\n', *lines[1:-1], lines[-1][:20]]
    )
    path.write_bytes(damaged)
    contents = read(tmp_path)
    assert (contents.target, len(contents.rows), contents.rows[1].reports) == (5, 2, ())
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(("outcome", "score"), [("completed", 0.5), ("stopped", None), ("memory_cap", None)])
def test_only_a_completed_row_has_a_score(outcome, score):
    ended = row(0, {"x": 1}, end(outcome, 0.5))
    assert (ended.outcome, ended.score) == (outcome, score)


def test_an_unfinished_row_has_neither_outcome_nor_score():
    unfinished = row(0, {"x": 1}, curve=[0.5])
    assert (unfinished.outcome, unfinished.score) == (None, None)


def test_how_a_row_is_fitted_and_that_it_hit_its_cap_are_kept(tmp_path):
    with filled(tmp_path) as ledger:
        assert (ledger.rows[1].forecast_mb, ledger.rows[1].fitted, ledger.rows[1].halvings) == (None, "", 0)
        ledger.fit(1, 912.04, "32 images at once")
        ledger.hit_cap(1, 1001.26, 1000)
        ledger.fit(1, 600, "16 images at once")
        ledger.hit_cap(0, 1001, 1000)
        assert ledger.hit_cap(0, 1001, 1000).halvings == 2
    with Ledger(tmp_path, IDENTITY) as ledger:
        row = ledger.rows[1]
        assert (row.forecast_mb, row.fitted, row.halvings) == (600, "16 images at once", 1)
        assert row.finish is None
        assert row.peak_to_forecast == pytest.approx(1001.3 / 912.0)


@pytest.mark.parametrize(
    ("measure", "ratio"),
    [
        (lambda ledger: ledger.report(1, EpochReport(1, 0.5, peak_mb=450)), 0.9),
        (lambda ledger: ledger.finish(1, end(value=0.5, peak_mb=550, cap_mb=800)), 1.1),
        (lambda ledger: ledger.finish(1, end("memory_cap", peak_mb=550, cap_mb=800)), 1.6),  # refused at its cap
        (lambda ledger: ledger.hit_cap(1, 550, 800), 1.6),
        (lambda ledger: ledger.hit_cap(1, 850, 800), 1.7),
    ],
)
def test_a_measured_peak_is_compared_with_the_forecast_in_force(tmp_path, measure, ratio):
    with filled(tmp_path) as ledger:
        measure(ledger)
        assert ledger.rows[1].peak_to_forecast == 0
    (tmp_path / FILE_NAME).unlink()
    with filled(tmp_path) as ledger:
        ledger.fit(1, 500, "")
        measure(ledger)
        ledger.report(1, EpochReport(2, 0.5, peak_mb=1))
        assert ledger.rows[1].peak_to_forecast == pytest.approx(ratio), "the largest counts"


def test_an_infeasible_row_has_a_forecast_for_a_peak_from_which_nothing_is_learned(tmp_path):
    with filled(tmp_path) as ledger:
        assert not ledger.rows[1].is_infeasible
        ledger.fit(1, 500, "")
        row = ledger.finish(1, end("memory_cap", peak_mb=1240, is_forecast=True))
        assert (row.is_infeasible, row.peak_to_forecast) == (True, 0)
        ledger.reopen(1)
        assert not ledger.finish(1, end("memory_cap", peak_mb=1240)).is_infeasible


def test_a_ledger_from_before_there_were_forecasts_reads_as_before(tmp_path):
    lines = [
        '{"event":"search","version":1,"identity":{"model":"small"},"time_ms":1}',
        '{"event":"target","trials":2,"time_ms":2}',
        '{"event":"proposed","row":0,"config":{"x":1},"origin":"default","time_ms":3}',
        '{"event":"started","row":0,"node":"here","time_ms":4}',
        '{"event":"report","row":0,"epoch":1,"value":0.5,"metrics":{},"peak_mb":70.0,"time_ms":5}',
        '{"event":"finished","row":0,"outcome":"memory_cap","value":null,"peak_mb":1001.0,"cap_mb":1000,'
        '"node":"here","epochs":1,"duration_s":2.5,"error":"","details":"","lost":false,"time_ms":6}',
    ]
    (tmp_path / FILE_NAME).write_text("".join(f"{line}\n" for line in lines))
    with Ledger(tmp_path, {"model": "small"}) as ledger:
        [row] = ledger.rows
    assert row.finish == Finish("memory_cap", None, 1001.0, 1000, "here", 1, 2.5)
    assert (row.starts, row.reports, row.is_infeasible) == (1, (EpochReport(1, 0.5, {}, 70.0),), False)
    assert (row.forecast_mb, row.fitted, row.halvings, row.peak_to_forecast) == (None, "", 0, 0.0)
