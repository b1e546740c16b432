"""The page of a report: what it has, what it says of what is missing, and that it fetches nothing."""

import re
from dataclasses import replace

import numpy as np
import pytest
from ledgers import end, row
from paired_predictions import predictions_of
from reported import report_of, training

from pipeline.data.prepared import PreparedData
from pipeline.evaluation.latency import Latency
from pipeline.promotion.gate import GateDecision, Verdict
from pipeline.reports.comparison_words import letter
from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.group_part import group_part
from pipeline.reports.report_facts import Pair
from pipeline.reports.report_page import is_ours, page_of
from pipeline.reports.report_words import arithmetic
from pipeline.reports.search_facts import SearchFacts
from pipeline.reports.search_part import search_part
from pipeline.search.store import SearchStatus, StoredSearch
from pipeline.stages.results import Registration
from tuning.space import Space

RIGHT, LESS = [1] * 70 + [0] * 30, [1] * 60 + [0] * 40


@pytest.fixture(scope="module")
def groups():
    first = (training(RIGHT, 0, 0.7), training(LESS, 1, 0.6), training([*LESS[1:], 1], 2, 0.65))
    second = (training(LESS, 0, 0.5, name="f1", latency=Latency(1.25, "a processor"), missing=("it is <old>",)),)
    return GroupFacts("A", first), GroupFacts("B", second, no_forecast="no such device here")


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("search")
    rows = [
        row(0, {"train.learning_rate": 0.001}, end(value=0.5), forecast_mb=290.0),
        row(1, {"train.learning_rate": 0.002}, end(value=0.7), forecast_mb=310.0),
        row(2, {"train.learning_rate": 0.004}, end("memory_cap"), forecast_mb=310.0),
        row(3, {"train.learning_rate": 0.008}),
    ]
    stored = StoredSearch(
        tmp_path / "5ea4c4", "k", "small", "2026-01-02 03:04:05", {}, SearchStatus(9, 4, 3, 0.7),
        tmp_path / "lock", True,
    )  # fmt: skip
    space = Space.parse({"train.learning_rate": {"log_uniform": [0.0005, 0.008]}})
    return SearchFacts(stored, tuple(rows), space, 700, ((0, 0.5, 0.5), (1, 0.7, 0.7)), {}, "r1")


@pytest.fixture(scope="module")
def page(groups, search):
    pair = Pair(groups[0], groups[1], None, "their test images differ")
    return page_of(report_of(groups, [pair], [search]))


def test_the_page_names_no_address_and_no_two_things_on_it_share_an_id(page):
    assert "://" not in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) > 10
    assert len(set(ids)) == len(ids)
    links = re.findall(r'<a href="#([^"]*)"', page)
    assert links
    assert set(links) <= set(ids)
    assert is_ours(page.encode())
    assert not is_ours(b"<html>somebody's own</html>")


def test_every_chart_says_what_it_shows_to_who_cannot_see_it(page):
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]*)"', page)
    assert len(labels) == page.count("<svg ")
    assert all(len(label) > 20 for label in labels)
    assert "A: vanilla: mean 63.33 %, " in labels[0]


def test_the_table_has_mean_and_interval_and_says_why_nothing_published_stands_beside_it(page):
    cells = re.findall(r"<tr><td[^>]*>A</td>(.*?)</tr>", page)[0]
    assert "63.33 %" in cells
    assert "Test accuracy 63.33 %, mean of 3 seeds (deviation 5.77 points" in page
    assert "48.99 to 77.68 %" in cells, "Student's t over three seeds"
    assert "No published figure beside A, B: data set that is not here, not cifar10" in page
    assert "One image: the fastest pass" in page


def test_the_median_seed_is_named_and_what_is_missing_is_said(page):
    assert "The charts are of seed 2, the median by test accuracy." in page
    assert "B, seed 0: it is &lt;old&gt;." in page
    assert "The images cannot be shown: the test images are not in this workspace." in page
    assert "They cannot be compared: their test images differ." in page
    assert "B: no forecast: no such device here." in page


def test_a_search_shows_its_best_trial_its_memory_and_who_computed_what(search):
    made = search_part(search, "s1")
    assert "Best: trial 1, validation accuracy 70.00 %, +20.00 points from trial 0." in made
    assert "unfinished, 3 of 9 trials, best 70.00 %" in made
    assert "held 710 MB, cap 700 MB" in made
    assert "Peak memory of 3 trials, 0.98 to 2.29 times what was forecast" in made
    assert made.count("<svg ") == 2, "history and memory"
    assert "Too few trials have completed" in made
    assert "0.0005 to 0.008, each factor as likely" in made


def test_a_search_in_which_nothing_has_ended_is_shown_too(search):
    made = search_part(replace(search, rows=search.rows[3:], points=(), cap_mb=None), "s1")
    assert "No trial has completed yet." in made
    assert "<svg " not in made


def test_mistakes_are_shown_as_images_where_these_are_the_ones_that_were_predicted(tmp_path, monkeypatch):
    arrays = {"test_ids": np.arange(100), "test_images": np.zeros((100, 32, 32, 3), np.uint8)}
    monkeypatch.setattr(PreparedData, "array", lambda self, name: arrays[name])
    prepared = PreparedData(
        folder=tmp_path, dataset="cifar10", source="folder", class_names=("airplane", "bird"), counts={},
        fraction=1.0, sha256={}, data_hash="d0", mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    one = training(RIGHT)
    one = replace(one, run=replace(one.run, prepared=prepared))
    made = group_part(GroupFacts("A", (one,)))
    assert made.count("<img ") == 24
    assert 'alt="test image 70, airplane"' in made
    assert "airplane taken for bird, 75\N{NO-BREAK SPACE}%" in made
    arrays["test_ids"] = np.arange(100)[::-1]
    made = group_part(GroupFacts("A", (one,)))
    assert "The images cannot be shown: the test images here are not those that were predicted." in made
    perfect = replace(one, predictions=predictions_of([1] * 100))
    assert "every test image is classified rightly" in group_part(GroupFacts("A", (perfect,)))


def test_the_gates_decision_is_part_of_the_lineage(tmp_path):
    decision = GateDecision(False, (Verdict("better by McNemar", False, "p 0.4 > 0.05"),), number=1, level=0.05)
    version = Registration(
        folder=tmp_path, name="task", version="3", aliases=("challenger",), run_id="r", run_key="k", tracking_uri="u",
        decision=decision,
    )  # fmt: skip
    made = group_part(GroupFacts("A", (training(RIGHT, registrations=(version,)),)))
    assert "of task, challenger when it was registered; gate: not promoted: the first decision" in made
    assert "p 0.4 &gt; 0.05" in made
    assert "c0ffee" in made


def test_letters_go_on_after_z():
    assert [letter(number) for number in (0, 25, 26, 27, 52)] == ["A", "Z", "AA", "AB", "BA"]


@pytest.mark.parametrize(
    ("pflop", "words"), [(2.5, "2.5 PFLOP"), (0.1, "0.1 PFLOP"), (0.02, "20 TFLOP"), (2.5e-6, "2.5 GFLOP")]
)
def test_arithmetic_has_the_unit_that_suits_it(pflop, words):
    assert arithmetic(pflop) == words
