"""The tables of docs/results.md, made from what was trained: every figure is from a stage's manifest.

python scripts/results.py                   add what the workspace here has to docs/results.json; write the tables
python scripts/results.py FOLDER ...        the same of other workspaces, such as one that a laptop brought

docs/results.json has an entry for each evaluated training on CIFAR-10; it stays when its workspace is gone.
"""

import json
import shlex
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.keys import as_words, flatten
from pipeline.config.recipes import RECIPE_NAMES
from pipeline.config.resolution import resolve
from pipeline.config.schema import CIFAR10_CLASSES, DataConfig, RunConfig
from pipeline.errors import WorkspaceError
from pipeline.evaluation.spread import spread
from pipeline.stages import evaluate, prepare, train
from pipeline.stages.results import Evaluation, TrainedModel
from pipeline.workspace.manifests import Manifest, read_manifest
from pipeline.workspace.paths import Workspace

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, KEPT = DOCS / "results.md", DOCS / "results.json"
FOUR, ALL, OTHERS = "four", "all", "others"
END = "<!-- end of results -->\n"
APART = ("seed", "recipe")
"""What says nothing of the settings: a training is of the recipe whose settings it has, whatever it was called."""
COLUMNS = (
    "recipe", "model", "classes", "seeds", "test accuracy (95 % interval)", "validation", "PFLOP",
    "training minutes", "images/s", "memory", "computed in", "processor", "runs",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One evaluated training."""

    run: str
    """The key of its MLflow run."""
    created: str
    config: Mapping[str, Any]
    """All settings that its stages read."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """Of the interval over the test images."""
    test_images: int
    validation_accuracy: float
    pflop: float | None
    trained_s: float
    images_per_s: float
    peak_memory_mb: float
    precision: str
    threads: int
    device: str
    processor: str
    commit: str | None

    @cached_property
    def settings(self) -> RunConfig:
        """The config, with the defaults of what is new since it was trained."""
        return RunConfig.model_validate(self.config)

    @cached_property
    def recipe(self) -> str:
        """The recipe whose settings these are, or are nearest to, however they were given."""
        return min(RECIPE_NAMES, key=lambda name: len(changes(self.settings, name)))

    @cached_property
    def changes(self) -> list[str]:
        """What differs from the recipe, as words for `--set`."""
        return as_words(changes(self.settings, self.recipe))

    @property
    def table(self) -> str:
        """The table that it stands in."""
        names = self.settings.data.class_names
        if self.changes or names not in (CIFAR10_CLASSES, CIFAR10_CLASSES[:4]):
            return OTHERS
        return ALL if names == CIFAR10_CLASSES else FOUR

    @property
    def what(self) -> str:
        """What seeds of the same training share, wherever each was trained."""
        return str(what_counts(self.settings))

    @property
    def kind(self) -> tuple[str, ...]:
        """What the results share that are one line of a table: all but the seed, and the machine."""
        return (self.what, self.processor, self.device, self.precision, str(self.threads))


def main(words: Sequence[str]) -> None:
    """Keep the results of the workspaces, and write the tables."""
    kept = read_kept(KEPT)
    for folder in map(Path, words or ["."]):
        found = list(results_in(Workspace.find(folder)))
        sys.stdout.write(f"{folder}: {len(found)} evaluated trainings on CIFAR-10\n")
        kept |= {key_of(one): one for one in found}
    ordered = sorted(kept.values(), key=lambda one: (one.created, one.run))
    KEPT.write_text(json.dumps([asdict(one) for one in ordered], indent=1) + "\n")
    PAGE.write_text(with_tables(PAGE.read_text(), ordered))


def key_of(result: Result) -> tuple[str, str]:
    """What names a result: its training, and how that was evaluated."""
    return (result.run, str(result.config["evaluate"]))


def read_kept(path: Path) -> dict[tuple[str, str], Result]:
    """The results that were kept before."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return {key_of(one): one for one in (Result(**fields) for fields in content)}


def results_in(workspace: Workspace) -> Iterator[Result]:
    """The evaluated trainings of a workspace on the whole of CIFAR-10, or of some of its classes."""
    manifests = {
        (stage, one.fingerprint): (path, one)
        for stage in (prepare.NAME, train.NAME, evaluate.NAME)
        for path in sorted(workspace.stage(stage).glob("*"))
        if (one := _manifest(path)) is not None and one.fingerprint == path.name
    }
    for (stage, _), (path, evaluation) in manifests.items():
        if stage != evaluate.NAME:
            continue
        trained = manifests.get((train.NAME, evaluation.inputs[train.NAME]))
        prepared = trained and manifests.get((prepare.NAME, trained[1].inputs[prepare.NAME]))
        if trained and prepared:
            data = prepared[1].reads["data"]
            if data["dataset"] == "cifar10" and data["fraction"] == 1:
                try:
                    result = _result(data, trained, (path, evaluation))
                    assert result.settings  # they can be read by this version
                    yield result
                except ValidationError as error:
                    sys.stderr.write(f"left out: {path} is of another version ({error.errors()[0]['msg']})\n")


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except WorkspaceError as error:
        sys.stderr.write(f"left out: {error}\n")
        return None


def _result(data: Mapping[str, Any], training: tuple[Path, Manifest], tested: tuple[Path, Manifest]) -> Result:
    trained = TrainedModel.model_validate({**training[1].result, "folder": training[0]})
    evaluation = Evaluation.model_validate({**tested[1].result, "folder": tested[0]})
    config = {
        **{key: training[1].reads[key] for key in ("seed", "model", "train")},
        "data": {key: value for key, value in data.items() if key in DataConfig.model_fields},
        "evaluate": tested[1].reads["evaluate"],
        "compute": {"precision": training[1].reads["precision"]},
    }
    numerics = trained.numerics
    return Result(
        run=trained.run_key,
        created=training[1].created,
        config=config,
        accuracy=evaluation.accuracy,
        accuracy_low=evaluation.accuracy_low,
        accuracy_high=evaluation.accuracy_high,
        test_images=evaluation.images,
        validation_accuracy=trained.validation_accuracy,
        pflop=trained.pflop,
        trained_s=trained.trained_s,
        images_per_s=trained.images_per_s,
        peak_memory_mb=trained.peak_memory_mb,
        precision=numerics["precision"],
        threads=numerics["threads"],
        device=numerics["device"],
        processor=numerics["cpu"],
        commit=trained.git_commit,
    )


def changes(config: RunConfig, recipe: str) -> dict[str, Any]:
    """The settings in which a config differs from a recipe for its classes."""
    of_recipe = resolve(config.model.name, flags={"recipe": recipe, "data.classes": config.data.classes})
    before, after = what_counts(of_recipe), what_counts(config)
    return {key: value for key, value in after.items() if value != before[key]}


def what_counts(config: RunConfig) -> dict[str, Any]:
    """The settings that make results comparable: all but the seed, and how a machine computes."""
    return {key: value for key, value in flatten(config).items() if key not in APART and key[:8] != "compute."}


def command_of(results: Sequence[Result]) -> list[str]:
    """The words that train and evaluate the seeds of one line."""
    first = results[0]
    classes = first.settings.data.classes
    of_classes = {} if classes == DataConfig().classes else {"data.classes": classes}
    sets = [*as_words(of_classes), *first.changes]
    seeds = ",".join(str(one.settings.seed) for one in results)
    words = ["seqpipe", "run", "all", "--model", first.settings.model.name, "--recipe", first.recipe]
    return [*words, *(word for one in sets for word in ("--set", one)), "--seeds", seeds]


def with_tables(page: str, results: Sequence[Result]) -> str:
    """The page with its tables made anew; what stands outside of the markers stays."""
    for name in (FOUR, ALL, OTHERS):
        page = with_section(page, f"results: {name}", table([one for one in results if one.table == name]))
    return page


def with_section(page: str, name: str, text: str) -> str:
    """The page with another text between the marker of this name and the next end."""
    begin = f"<!-- {name} -->\n"
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        sys.exit(f"{PAGE}: a text goes between {begin.strip()} and {END.strip()}, which are not there")
    return before + begin + text + end + after


def table(results: Iterable[Result]) -> str:
    """A line for each group of seeds on one kind of machine; below the table their commands and runs."""
    groups: dict[tuple[str, ...], dict[int, Result]] = {}
    for one in results:  # of a seed that was trained again, the newest counts
        groups.setdefault(one.kind, {})[one.settings.seed] = one
    if not groups:
        return "\nNothing was trained yet.\n\n"
    ordered = sorted(([seeds[seed] for seed in sorted(seeds)] for seeds in groups.values()), key=_order)
    lines = [row(COLUMNS), row(["---"] * len(COLUMNS))]
    notes = []
    for number, seeds in enumerate(ordered, 1):
        lines.append(row([*_cells(seeds), f"[{number}]"]))
        runs = ", ".join(f"`{one.run}`" for one in seeds)
        commits = ", ".join(dict.fromkeys((one.commit or "unknown")[:12] for one in seeds))
        notes.append(f"- [{number}] `{shlex.join(command_of(seeds))}`; runs {runs}; commit {commits}")
    return "\n".join(["", *lines, "", *notes, *_over_machines(ordered), ""]) + "\n"


def _over_machines(groups: Sequence[Sequence[Result]]) -> Iterator[str]:
    """A note on each training whose seeds were trained on several kinds of machine."""
    trainings: dict[str, list[Sequence[Result]]] = {}
    for seeds in groups:
        trainings.setdefault(seeds[0].what, []).append(seeds)
    for parts in trainings.values():
        by_seed = {one.settings.seed: one for seeds in parts for one in seeds}
        if len(parts) > 1 and len(by_seed) > 1:
            seeds = [by_seed[seed] for seed in sorted(by_seed)]
            recipe, model, _, numbers, accuracy, validation = _cells(seeds)[:6]
            about = f"{recipe}, {model}, on all of these machines"
            yield f"- {about}: seeds {numbers}: {accuracy}, validation {validation}"


def _order(seeds: Sequence[Result]) -> tuple[Any, ...]:
    first = seeds[0]
    names = first.settings.data.class_names
    recipe = RECIPE_NAMES.index(first.recipe)
    return (first.settings.model.name, recipe, first.changes, len(names), first.processor, first.precision)


def _cells(seeds: Sequence[Result]) -> list[str]:
    first = seeds[0]
    tested = spread([one.accuracy for one in seeds])
    low, high, over = tested.low, tested.high, f"over {len(seeds)} seeds"
    if low is None or high is None:
        low, high, over = first.accuracy_low, first.accuracy_high, f"over {first.test_images} images"
    pflops = [one.pflop for one in seeds if one.pflop is not None]
    names = first.settings.data.class_names
    return [
        f"{first.recipe}, but {', '.join(first.changes)}" if first.changes else first.recipe,
        first.settings.model.name,
        "all ten" if names == CIFAR10_CLASSES else ", ".join(names),
        ", ".join(str(one.settings.seed) for one in seeds),
        f"**{100 * tested.mean:.2f}** ({100 * low:.2f} to {100 * high:.2f} {over})",
        f"{100 * _mean(one.validation_accuracy for one in seeds):.2f}",
        f"{_mean(pflops):.3g}" if pflops else "-",
        f"{_mean(one.trained_s for one in seeds) / 60:.1f}",
        f"{_mean(one.images_per_s for one in seeds):.0f}",
        f"{max(one.peak_memory_mb for one in seeds):.0f} MB",
        f"{first.precision} on {first.device}, {first.threads} {'thread' if first.threads == 1 else 'threads'}",
        first.processor,
    ]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def row(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
