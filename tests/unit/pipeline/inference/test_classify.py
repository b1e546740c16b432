"""Files in, what the model says of each out."""

import numpy as np
from PIL import Image

from pipeline.inference import classify
from pipeline.inference.classify import classify_files
from pipeline.inference.prediction import Classified, Unreadable


def test_each_file_has_its_own_prediction_whatever_cannot_be_read_between(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(classify, "BATCH", 3)
    classifier = model_folder.read()
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    files = [str(tmp_path / f"{number}.png") for number in range(7)]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    for bad in (0, 3, 4):
        (tmp_path / f"{bad}.png").write_bytes(b"")
    batches = list(classify_files(classifier, files))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    rows = [row for batch in batches for row in batch]
    assert [row.path for row in rows] == files
    assert [row for row in rows if isinstance(row, Unreadable)] == [
        Unreadable(files[bad], "empty (0 bytes)") for bad in (0, 3, 4)
    ]
    expected = classifier.probabilities(pixels)
    for number in (1, 2, 5, 6):
        row = rows[number]
        assert isinstance(row, Classified)
        np.testing.assert_allclose(row.prediction.probabilities, expected[number], atol=1e-6)
