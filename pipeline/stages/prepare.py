"""prepare: get the data set, choose classes, split, and write arrays that training maps into memory."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import DataConfig, RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.stages.context import Context
from pipeline.stages.results import Results
from pipeline.stages.stage import Stage
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.durable_files import writing
from pipeline.workspace.fingerprints import canonical_json, fingerprint

if TYPE_CHECKING:
    from pipeline.data.sources import RawDataset

NAME = "prepare"
VERSION = 1
SPLITS = ("train", "validation", "test")


class Prepare(Stage):
    """Makes the same arrays each time, so that what stands on them stays when it runs again."""

    name = NAME
    version = VERSION
    result = PreparedData
    retention = "while needed"

    def reads(self, config: RunConfig, mlflow: ResolvedMlflow) -> dict[str, Any]:
        return reads(config)

    def run(self, config: RunConfig, made: Results, folder: Path, context: Context) -> PreparedData:
        return prepare(config, folder, context)

    def summary(self, result: Mapping[str, Any]) -> str:
        images = sum(sum(split.values()) for split in result["counts"].values())
        return f"{result['dataset']}, {len(result['class_names'])} classes, {images} images"


STAGE = Prepare()


def reads(config: RunConfig) -> dict[str, Any]:
    """The data settings; the source does not count, since its arrays are verified."""
    data = config.data.model_dump(mode="json", exclude={"source", "folder"})
    return {"data": data | {"dataset": config.data.dataset, "classes": list(config.data.class_names)}}


def fingerprint_of(config: RunConfig) -> str:
    """The fingerprint of the prepared data of a config."""
    return fingerprint(NAME, VERSION, reads(config), {})


def prepare(config: RunConfig, folder: Path, context: Context) -> PreparedData:
    """Write `<split>_images.npy`, `<split>_labels.npy`, `test_ids.npy` and a contact sheet into `folder`.

    Raises:
        DataError: the data set cannot be fetched, or is not what it should be.
        ConfigError: a class with too few images to split.
    """
    import numpy as np

    from pipeline.data import subset
    from pipeline.evaluation.chart_style import save_figure
    from pipeline.evaluation.galleries import contact_sheet

    data = config.data
    raw = _fetched(data, context)
    chosen = subset.choose(
        raw.train_labels,
        raw.test_labels,
        raw.class_names,
        classes=data.class_names,
        fraction=data.fraction,
        validation_fraction=data.validation_fraction,
        seed=data.split_seed,
    )
    sha256: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}

    def write(name: str, array: "np.ndarray[Any, Any]") -> None:
        with writing(folder / f"{name}.npy"):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        sha256[name] = hashlib.sha256(array.data).hexdigest()

    for split in SPLITS:
        rows = getattr(chosen, split)
        images, labels = (raw.test_images, rows.labels) if split == "test" else (raw.train_images, rows.labels)
        pixels = images[rows.indices]
        if split == "train":
            mean, std = channel_statistics(pixels)
            sheet = contact_sheet(pixels, labels, chosen.class_names)
        write(f"{split}_images", pixels)
        write(f"{split}_labels", labels)
        counts[split] = {name: int((labels == label).sum()) for label, name in enumerate(chosen.class_names)}
    write("test_ids", chosen.test.indices)
    with writing(folder):
        save_figure(sheet, folder / "contact_sheet.png")
    return PreparedData(
        folder=folder,
        dataset=raw.name,
        source=raw.source,
        class_names=chosen.class_names,
        counts=counts,
        fraction=data.fraction,
        sha256=sha256,
        data_hash=hashlib.sha256(canonical_json(sha256)).hexdigest(),
        mean=mean,
        std=std,
    )


def _fetched(data: DataConfig, context: Context) -> "RawDataset":
    """The whole data set, with a report of where it came from."""
    from pipeline.data import sources

    if data.source == "auto" and data.folder is not None and not (named := sources.expanded(data.folder)).exists():
        context.reporter.warn(f"data.folder={named} is not there; the other sources are tried")
    raw = sources.obtain(
        data.source,
        folder=data.folder,
        cache=context.workspace.data,
        workspace=context.workspace.root,
        progress=context.reporter.bytes_done,
    )
    for attempt in raw.attempts:
        for line in attempt.lines():
            context.reporter.note(line)
    if data.folder is not None and raw.source != "folder":
        context.reporter.warn(f"nothing was taken from data.folder={data.folder}; the images came from {raw.source}")
    return raw


def channel_statistics(images: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of N x H x W x C uint8, exact sums, on the 0..255 scale."""
    import numpy as np

    pixels = images.reshape(-1, images.shape[-1])
    counts = np.zeros((pixels.shape[1], 256), np.int64)
    for start in range(0, len(pixels), 1 << 20):  # bincount widens what it counts to int64
        for channel, values in enumerate(pixels[start : start + (1 << 20)].T):
            counts[channel] += np.bincount(values, minlength=256)
    values = np.arange(256)
    mean = (counts * values).sum(1) / len(pixels)
    variance = (counts * values**2).sum(1) / len(pixels) - mean**2
    std = np.sqrt(variance).clip(min=1.0)  # a constant channel stays a constant
    return tuple(mean.tolist()), tuple(std.tolist())
