"""The tables of docs/results.md, made from what was trained: every figure is from a stage's manifest.

python scripts/results.py                   add what the workspace here has to docs/results.json; write the tables
python scripts/results.py FOLDER ...        the same of other workspaces, such as one that a laptop brought

docs/results.json has an entry for each evaluated training on CIFAR-10; it stays when its workspace is gone.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from pipeline.stages.seed_group import group_of
from pipeline.workspace.manifests import Manifest, read_manifest
from pipeline.workspace.paths import Workspace

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, KEPT = DOCS / "results.md", DOCS / "results.json"
FOUR, ALL, OTHERS = "four", "all", "others"
END = "<!-- end of results -->\n"
COLUMNS = (
    "recipe", "model", "classes", "seeds", "test accuracy (95 % interval)", "validation", "PFLOP",
    "training minutes", "images/s", "memory", "computed in", "processor", "runs",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One evaluated training."""

    run: str
    """The key of its MLflow run."""
    group: str
    """The same for trainings and evaluations that differ in their seed alone."""
    created: str
    recipe: str | None
    """Whose settings these are; None for settings of their own."""
    command: Sequence[str]
    """What trains it, without the seed."""
    model: str
    classes: Sequence[str]
    seed: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """Of the interval over the test images."""
    test_images: int
    validation_accuracy: float
    epochs: int
    pflop: float | None
    trained_s: float
    images_per_s: float
    peak_memory_mb: float
    precision: str
    threads: int
    device: str
    processor: str
    commit: str | None

    @property
    def kind(self) -> tuple[str, ...]:
        """What the results that are one line of a table share."""
        return (self.group, self.processor, self.device, self.precision, str(self.threads))


def main(words: Sequence[str]) -> None:
    """Keep the results of the workspaces, and write the tables."""
    kept = read_kept(KEPT)
    for folder in map(Path, words or ["."]):
        found = list(results_in(Workspace.find(folder)))
        sys.stdout.write(f"{folder}: {len(found)} evaluated trainings on CIFAR-10\n")
        kept |= {(one.run, one.group): one for one in found}
    ordered = sorted(kept.values(), key=lambda one: (one.created, one.run))
    KEPT.write_text(json.dumps([asdict(one) for one in ordered], indent=1) + "\n")
    PAGE.write_text(with_tables(PAGE.read_text(), ordered))


def read_kept(path: Path) -> dict[tuple[str, str], Result]:
    """The results that were kept before."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return {(one["run"], one["group"]): Result(**one) for one in content}


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
                    yield _result(data, trained, (path, evaluation))
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
    config = RunConfig.model_validate(
        {
            **{key: training[1].reads[key] for key in ("seed", "model", "train")},
            "data": {key: value for key, value in data.items() if key in DataConfig.model_fields},
            "evaluate": tested[1].reads["evaluate"],
            "compute": {"precision": training[1].reads["precision"]},
        }
    )
    recipe = recipe_of(config)
    numerics = trained.numerics
    return Result(
        run=trained.run_key,
        group=f"{group_of(training[1])} {json.dumps(tested[1].reads['evaluate'], sort_keys=True)}",
        created=training[1].created,
        recipe=recipe,
        command=command_of(config, recipe),
        model=trained.model,
        classes=config.data.class_names,
        seed=config.seed,
        accuracy=evaluation.accuracy,
        accuracy_low=evaluation.accuracy_low,
        accuracy_high=evaluation.accuracy_high,
        test_images=evaluation.images,
        validation_accuracy=trained.validation_accuracy,
        epochs=trained.epochs,
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


def recipe_of(config: RunConfig) -> str | None:
    """The recipe whose settings a config has, however they were given; None if it has settings of its own."""
    return next((name for name in RECIPE_NAMES if not _changes(config, name)), None)


def command_of(config: RunConfig, recipe: str | None) -> list[str]:
    """The words that train a config; without a recipe, by the settings that differ from the nearest one's."""
    nearest = recipe or min(RECIPE_NAMES, key=lambda name: len(_changes(config, name)))
    sets = _changes(config, nearest)
    if config.data.classes != DataConfig().classes:
        classes = config.data.classes
        sets = {"data.classes": classes if classes == "all" else list(classes), **sets}
    words = ["seqpipe", "run", "all", "--model", config.model.name, "--recipe", nearest]
    return words + [word for one in as_words(sets) for word in ("--set", one)]


def _changes(config: RunConfig, recipe: str) -> dict[str, Any]:
    """The settings in which a config differs from a recipe, but for classes, the seed and how a machine computes."""
    of_recipe = flatten(resolve(config.model.name, flags={"recipe": recipe, "data.classes": config.data.classes}))
    apart = ("seed", "recipe", "data.classes")
    return {
        key: value
        for key, value in flatten(config).items()
        if value != of_recipe[key] and key not in apart and not key.startswith("compute.")
    }


def with_tables(page: str, results: Sequence[Result]) -> str:
    """The page with its tables made anew; what stands outside of the markers stays."""
    for name in (FOUR, ALL, OTHERS):
        begin = f"<!-- results: {name} -->\n"
        before, found, rest = page.partition(begin)
        _, end, after = rest.partition(END)
        if not found or not end:
            sys.exit(f"{PAGE}: the results go between {begin.strip()} and {END.strip()}, which are not there")
        page = before + begin + tables([one for one in results if table_of(one) == name]) + end + after
    return page


def table_of(result: Result) -> str:
    """The table that a result belongs to."""
    if result.recipe is None:
        return OTHERS
    names = tuple(result.classes)
    return ALL if names == CIFAR10_CLASSES else FOUR if names == CIFAR10_CLASSES[:4] else OTHERS


def tables(results: Iterable[Result]) -> str:
    """One table, a line for each group of seeds on one kind of machine; below it their commands and runs."""
    groups: dict[tuple[str, ...], dict[int, Result]] = {}
    for one in results:  # of a seed that was trained again, the newest counts
        groups.setdefault(one.kind, {})[one.seed] = one
    if not groups:
        return "\nNothing was trained yet.\n\n"
    ordered = sorted(groups.values(), key=_order)
    lines = [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
    notes = []
    for number, seeds in enumerate(ordered, 1):
        of_seeds = [seeds[seed] for seed in sorted(seeds)]
        lines.append(_row([*_cells(of_seeds), f"[{number}]"]))
        seeds_word = f"--seeds {','.join(str(one.seed) for one in of_seeds)}"
        runs = ", ".join(f"`{one.run}`" for one in of_seeds)
        commits = ", ".join(dict.fromkeys((one.commit or "unknown")[:12] for one in of_seeds))
        notes.append(f"- [{number}] `{_typed(of_seeds[0].command)} {seeds_word}`; runs {runs}; commit {commits}")
    return "\n".join(["", *lines, "", *notes, ""]) + "\n"


def _order(seeds: Mapping[int, Result]) -> tuple[Any, ...]:
    first = next(iter(seeds.values()))
    recipe = RECIPE_NAMES.index(first.recipe) if first.recipe in RECIPE_NAMES else len(RECIPE_NAMES)
    return (recipe, first.model, len(first.classes), first.command, first.processor, first.precision)


def _cells(seeds: Sequence[Result]) -> list[str]:
    first = seeds[0]
    tested = spread([one.accuracy for one in seeds])
    low, high = tested.low, tested.high
    over = f"over {len(seeds)} seeds"
    if low is None or high is None:
        low, high, over = first.accuracy_low, first.accuracy_high, f"over {first.test_images} images"
    pflops = [one.pflop for one in seeds if one.pflop is not None]
    classes = "all ten" if tuple(first.classes) == CIFAR10_CLASSES else ", ".join(first.classes)
    return [
        first.recipe or "-",
        first.model,
        classes,
        ", ".join(str(one.seed) for one in seeds),
        f"**{100 * tested.mean:.2f}** ({100 * low:.2f} to {100 * high:.2f} {over})",
        f"{100 * _mean(one.validation_accuracy for one in seeds):.2f}",
        f"{_mean(pflops):.3g}" if pflops else "-",
        f"{_mean(one.trained_s for one in seeds) / 60:.1f}",
        f"{_mean(one.images_per_s for one in seeds):.0f}",
        f"{max(one.peak_memory_mb for one in seeds):.0f} MB",
        f"{first.precision} on {first.device}, {first.threads} threads",
        first.processor,
    ]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _typed(words: Sequence[str]) -> str:
    return " ".join(f"'{word}'" if set(word) & set("[]*? ") else word for word in words)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
