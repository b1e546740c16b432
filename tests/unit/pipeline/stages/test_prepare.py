import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.config.resolution import resolve
from pipeline.data import sources
from pipeline.data.prepared import PreparedData
from pipeline.errors import DataError, WorkspaceError
from pipeline.stages import prepare
from pipeline.workspace.fingerprints import file_sha256


def test_the_splits_hold_the_chosen_images_of_each_class(prepared_once):
    assert prepared_once.class_names == ("airplane", "automobile", "bird", "cat")
    for split, per_class in (("train", 8), ("validation", 2), ("test", 5)):
        images, labels = prepared_once.array(f"{split}_images"), prepared_once.array(f"{split}_labels")
        assert (images.shape, images.dtype) == ((4 * per_class, 32, 32, 3), np.uint8)
        assert labels.dtype == np.int64
        assert np.bincount(labels).tolist() == [per_class] * 4
        assert prepared_once.counts[split] == dict.fromkeys(prepared_once.class_names, per_class)
        assert prepared_once.images_in(split) == 4 * per_class
    assert prepared_once.contact_sheet.stat().st_size > 1000
    assert prepared_once.array("test_ids").shape == (20,)


def test_mean_and_deviation_are_those_of_the_training_split(prepared_once):
    pixels = prepared_once.array("train_images").astype(np.float64)
    np.testing.assert_allclose(prepared_once.mean, pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(prepared_once.std, pixels.std((0, 1, 2)))


def test_a_constant_channel_is_not_divided_by_nothing():
    mean, std = prepare.channel_statistics(np.full((2, 4, 4, 3), 9, np.uint8))
    assert (mean, std) == ((9.0,) * 3, (1.0,) * 3)


def test_statistics_are_exact_for_more_pixels_than_one_piece():
    images = np.random.default_rng(0).integers(0, 256, (1030, 32, 32, 3)).astype(np.uint8)  # just over 2^20 pixels
    mean, std = prepare.channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-9)


def test_preparing_again_makes_the_same_data(prepared_once, config, context, tmp_path):
    again = prepare.prepare(config, tmp_path, context)
    assert again.sha256 == prepared_once.sha256
    assert again.data_hash == prepared_once.data_hash
    assert file_sha256(again.contact_sheet) == file_sha256(prepared_once.contact_sheet)


def test_another_split_seed_is_other_data(prepared_once, changed, context, tmp_path):
    other = prepare.prepare(changed("data.split_seed=1"), tmp_path, context)
    assert other.data_hash != prepared_once.data_hash
    assert other.sha256["train_images"] != prepared_once.sha256["train_images"]


def test_only_the_data_set_counts_and_not_where_it_came_from(changed):
    assert prepare.reads(changed("data.source=npm")) == prepare.reads(changed("data.source=folder"))
    assert "folder" not in prepare.reads(changed())["data"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"), "altered"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"no array"), "damaged"),
    ],
)
def test_an_array_that_is_no_longer_what_was_prepared_is_refused(prepared, damage, problem):
    damage(prepared.folder / "test_labels.npy")
    with pytest.raises(
        WorkspaceError, match=rf"test_labels\.npy: {problem} since it was prepared; remove the folder"
    ):
        prepared.array("test_labels")
    prepared.array("train_labels")


def test_a_result_is_frozen_and_comes_back_from_what_a_manifest_keeps(prepared):
    kept = prepared.model_dump(mode="json")
    assert "folder" not in kept
    assert PreparedData.model_validate({**kept, "folder": prepared.folder}) == prepared
    with pytest.raises(ValidationError, match="frozen"):
        prepared.dataset = "other"


def test_a_named_folder_that_is_not_there_is_told_before_other_sources_are_tried(context, tmp_path, monkeypatch):
    def told_by_then(*_, **__):
        assert context.reporter.warnings == [f"data.folder={tmp_path}/gone is not there; the other sources are tried"]
        raise DataError("enough")

    monkeypatch.setattr(sources, "obtain", told_by_then)
    with pytest.raises(DataError, match="enough"):
        prepare.prepare(resolve(flags={"data.folder": tmp_path / "gone"}), tmp_path, context)
