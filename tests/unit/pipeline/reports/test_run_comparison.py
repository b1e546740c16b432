import json
from dataclasses import replace

import numpy as np
import pytest
from paired_predictions import predictions_of

from pipeline.data.prepared import PreparedData
from pipeline.errors import ConfigError
from pipeline.evaluation.predictions import save_predictions
from pipeline.promotion.seeds import group_difference, group_mean
from pipeline.reports.comparison_page import page
from pipeline.reports.comparison_words import sections
from pipeline.reports.named_runs import NamedRun, Side
from pipeline.reports.run_comparison import compare_sides

FIRST = [1] * 70 + [1] * 4 + [0] * 12 + [0] * 14
SECOND = [1] * 70 + [0] * 4 + [1] * 12 + [0] * 14


def prepared(root, images="i0", dataset="synthetic"):
    return PreparedData(
        folder=root, dataset=dataset, source=dataset, class_names=("airplane", "bird"), counts={}, fraction=1.0,
        sha256={"test_images": images, "test_labels": "l0"}, data_hash="d0", mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip


@pytest.fixture
def side(tmp_path):
    def make(*rights, ids=None, **changes):
        runs = []
        for number, right in enumerate(rights):
            path = tmp_path / f"{np.random.default_rng().integers(10**12)}.npz"
            save_predictions(path, predictions_of(right, ids=ids))
            settings = {"seed": number, "train": {"epochs": 11, "batch_size": 128}}
            run = NamedRun(f"k{number}", f"run <{number}>", "small", 1000, path, settings=settings)
            runs.append(replace(run, **changes))
        return Side("word", tuple(runs))

    return make


def words(found):
    return [line for section in sections(found) for line in (section.heading, *section.lines)]


def test_two_runs_are_compared_by_paired_tests_and_their_settings(side):
    other = side(SECOND, settings={"seed": 0, "train": {"epochs": 20, "batch_size": 128}})
    found = compare_sides([side(FIRST), other])
    assert [round(one.accuracy, 2) for one in found.sides] == [0.74, 0.82]
    assert found.sides[0].accuracy_low < 0.74 < found.sides[0].accuracy_high
    [against] = found.against
    assert (against.accuracy, against.log_loss) == (None, None)
    assert against.paired.counts.only_second == 12
    assert [one.in_words() for one in against.settings] == ["train.epochs: 11 -> 20"]
    assert "only A is right on 4 images, only B on 12: p 0.0768 (exact McNemar test, two-sided)" in words(found)
    assert "A and B disagree on 16 images" in words(found)


def test_a_group_is_compared_over_seeds_and_images(side):
    groups = [[FIRST, [*FIRST[1:], 1]], [SECOND, [*SECOND[2:], 0, 1]]]
    found = compare_sides([side(*groups[0]), side(*groups[1])])
    [against] = found.against
    right = [np.array(group, dtype=float) for group in groups]
    assert against.paired is None
    assert against.accuracy == group_difference(*right)
    mean = group_mean(right[0])
    first = found.sides[0]
    assert (first.accuracy, first.accuracy_low, first.accuracy_high) == (mean.estimate, mean.low, mean.high)
    assert first.interval_of == "seeds and images"
    assert against.settings == (), "the seeds are the same"
    assert any(line.startswith("over seeds and images (t distribution, ") for line in words(found))


def test_a_run_against_a_group_says_that_its_seed_counts_for_nothing(side):
    found = compare_sides([side(FIRST), side(SECOND, [*SECOND[2:], 0, 1])])
    assert found.against[0].accuracy.unit == "images"
    assert any(line.endswith("a group of one run does not show what its seed does") for line in words(found))
    assert [(one.key, one.after) for one in found.against[0].settings] == [("seed", (0, 1))]


def test_each_is_compared_with_the_first(side):
    found = compare_sides([side(FIRST), side(SECOND), side(FIRST)])
    assert [one.paired.counts.difference for one in found.against] == [0.08, 0.0]
    assert [heading for heading in words(found) if heading.endswith("less A")] == ["B less A", "C less A"]


def test_settings_that_are_not_known_here_are_not_called_the_same(side):
    found = compare_sides([side(FIRST), side(SECOND, settings=None)])
    assert found.against[0].settings is None
    assert "the settings of one of them are not known in this workspace" in words(found)
    assert "they are the same" in words(compare_sides([side(FIRST), side(SECOND)]))


def test_what_cannot_be_compared_is_refused_with_the_names_and_the_reason(side, tmp_path):
    with pytest.raises(ConfigError, match=r"run <0> \(k0\) and run <0> \(k0\): they predicted other test images"):
        compare_sides([side(FIRST), side(SECOND, ids=range(5, 105))])
    made_up, real = prepared(tmp_path), prepared(tmp_path, "i1", "cifar10")
    with pytest.raises(ConfigError, match="their test images differ, though they have the same numbers: synthetic"):
        compare_sides([side(FIRST, prepared=made_up), side(SECOND, prepared=real)])
    compare_sides([side(FIRST, prepared=made_up), side(SECOND, prepared=made_up)])


def test_as_json_it_has_every_figure_and_the_first_few_images_that_they_disagree_on(side):
    content = json.loads(json.dumps(compare_sides([side([1] * 50), side([0] * 50)]).to_json(), allow_nan=False))
    paired = content["against"][0]["paired"]
    assert (paired["disagreements_in_all"], len(paired["disagreements"])) == (50, 24)
    assert paired["accuracy"]["estimate"] == -1.0


def test_the_page_has_the_tables_and_the_pictures_and_needs_no_other_file(side):
    found = compare_sides([side(FIRST), side(SECOND)])
    images = np.zeros((100, 32, 32, 3), dtype=np.uint8)
    html = page(found, images)
    assert "run &lt;0&gt;" in html
    assert ">airplane</td>" in html
    assert html.count("data:image/png;base64,") == 1
    assert "://" not in html
    assert "The test images are not in this workspace" in page(found, None)


def test_runs_that_agree_on_every_image_have_no_pictures(side):
    assert "<img" not in page(compare_sides([side(FIRST), side(FIRST)]), None)
