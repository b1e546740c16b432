"""Every model, with options that change what it computes, in every format of `seqpipe models export`."""

import pytest
from exported_models import some_images, tiny_classifier

from pipeline.exporting.export import export
from pipeline.exporting.formats import ExportFormat

ALL = tuple(ExportFormat)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("small", {}),
        ("small", {"stem": "deep", "whitened": True, "pooling": "attention", "mirrored": True}),
        ("small", {"stem": "conv", "mixing": "rows"}),
        ("small", {"mixing": "columns", "grid": 4}),
        ("medium", {"forget_bias": 1.0}),
        ("vanilla", {"sequence": "patches", "pooling": "attention", "mirrored": True}),
    ],
)
def test_every_model_gives_the_same_probabilities_in_every_format(tmp_path, model, options):
    done = export(tiny_classifier(model, **options), some_images(), tmp_path / "out", ALL)
    assert {name: found.images for name, found in done.checks.items()} == {one.file: 60 for one in ALL}
    assert max(found.largest_difference for found in done.checks.values()) < 1e-5
    assert {found.other_classes for found in done.checks.values()} == {0}
