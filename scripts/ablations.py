"""The ablations of docs/results.md: one thing changed at a time, at about equal arithmetic, with two seeds each.

python scripts/ablations.py train WORKSPACE [WORD ...]  train and evaluate what is not yet, one after another; the
                                                        same command goes on. WORDs go to `seqpipe run evaluate`.
python scripts/ablations.py show                        tables and pictures, from docs/results.json

`make results ARGS=WORKSPACE` keeps what was trained, and shows it. A variant has as many epochs as bring its
arithmetic nearest to that of the others.
"""

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results import DOCS, KEPT, PAGE, Result, read_kept, row, what_counts, with_section

from pipeline.config.keys import as_words
from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.evaluation.chart_style import save_figure
from pipeline.reports.charts import SeedsRow, seeds_chart

CONFIGS = DOCS.parent / "configs"
PICTURES = DOCS / "pictures"
SEQPIPE = Path(sys.executable).parent / "seqpipe"
SEEDS = (0, 1)
INTERVAL = "95 % interval of the test images"
COLUMNS = ("", "seeds", "test accuracy", INTERVAL, "epochs", "PFLOP")


@dataclass(frozen=True)
class Variant:
    """One side of a comparison: the default recipe, but for some settings; or a config file."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = "small"
    file: str | None = None
    """In configs/."""
    seeds: Sequence[int] = SEEDS

    @property
    def path(self) -> Path | None:
        return CONFIGS / self.file if self.file else None

    @property
    def config(self) -> RunConfig:
        return resolve(self.model, self.path, flags=self.settings)

    def words(self, seed: int) -> list[str]:
        """Of the command that trains and evaluates it."""
        words = ["run", "evaluate", "--model", self.model, "--seed", str(seed)]
        if self.path:
            words += ["--config", str(self.path)]
        return words + [word for one in as_words(self.settings) for word in ("--set", one)]


@dataclass(frozen=True)
class Ablation:
    """A question, and what is compared to answer it."""

    name: str
    """Of its picture, and of its place in the page."""
    title: str
    variants: Sequence[Variant]


EPOCHS = 3
"""Of small as it is: 0.078 PFLOP."""


def _small(label: str, epochs: int, **model: Any) -> Variant:
    return Variant(label, {"train.epochs": epochs, **{f"model.{key}": value for key, value in model.items()}})


def _option(label: str, **settings: Any) -> Variant:
    """One option of the default recipe changed; `__` stands for a dot. One seed: there are many."""
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return Variant(label, {"train.epochs": EPOCHS, **dotted}, seeds=(0,))


ABLATIONS = (
    Ablation(
        "axes",
        "What the LSTMs run along",
        (
            _small("rows and columns", EPOCHS),
            _small("rows alone", 3, mixing="rows"),
            _small("columns alone", 3, mixing="columns"),
        ),
    ),
    Ablation(
        "start",
        "How the weights start",
        (_small("He, scaled by depth", EPOCHS), _small("as in the paper", 3, init="paper")),
    ),
    Ablation(
        "tokens",
        "How many tokens",
        (_small("8 x 8", EPOCHS), _small("4 x 4", 9, grid=4)),
    ),
    Ablation(
        "depth",
        "How many blocks",
        (
            _small("2 + 1", 7, depths=(2, 1)),
            _small("4 + 3", EPOCHS),
            _small("6 + 4", 2, depths=(6, 4)),
        ),
    ),
    Ablation(
        "stem",
        "What makes the tokens",
        (
            _option("patch embedding"),
            _option("two convolutions", model__stem="conv"),
            _option("three convolutions", model__stem="deep"),
            _option("the first of them whitens", model__stem="deep", model__whitened=True),
        ),
    ),
    Ablation(
        "options",
        "Options of the model and of its training",
        (
            _option("as the recipe has it"),
            _option("AdamW", train__optimizer="adamw", train__learning_rate=2e-3),
            _option("forget gates start at 0", model__forget_bias=0.0),
            _option("recurrent weights start orthogonal", model__recurrent_init="orthogonal"),
            _option("tokens pooled by attention", model__pooling="attention"),
            _option("mirrored at random", train__augment__alternating_flip=False),
            _option("shifted images reflect", train__augment__padding="reflect"),
            _option("CutMix on half of the batches", train__augment__cutmix=0.5),
            _option("averaged weights, 0.99", train__ema_decay=0.99),
            _option("AdamW's beta2 0.98", train__adam_beta2=0.98),
            _option("biases and norms at twice the rate", train__bias_rate_factor=2.0),
        ),
    ),
    Ablation(
        "notebooks",
        "The notebooks' settings",
        tuple(
            Variant(f"{model}, {whose}", settings, model, file, seeds=(0,))
            for model, ours in (
                ("small", {"train.epochs": 13, "model.grid": 4}),
                ("medium", {"train.epochs": 12, "model.grid": 4}),
                ("vanilla", {"train.epochs": 17}),
            )
            for whose, settings, file in (
                ("the notebook's", {}, f"notebook-{model}.yaml"),
                ("ours", ours, None),
            )
        ),
    ),
)


def main(words: Sequence[str]) -> None:
    """Train them, or show what was kept of them."""
    match words:
        case ["train", folder, *rest]:
            train_all(Path(folder), rest)
        case ["show"]:
            show(list(read_kept(KEPT).values()))
        case _:
            sys.exit(__doc__)


def train_all(workspace: Path, words: Sequence[str]) -> None:
    """Every variant with its first seed, then with the next; what is up to date takes a moment."""
    done: list[RunConfig] = []
    for seed in SEEDS:
        for ablation in ABLATIONS:
            for variant in ablation.variants:
                config = resolve(variant.model, variant.path, flags={**variant.settings, "seed": seed})
                if seed not in variant.seeds or config in done:
                    continue
                done.append(config)
                sys.stdout.write(f"{ablation.title}: {variant.label}, seed {seed}\n")
                sys.stdout.flush()
                code = subprocess.run([SEQPIPE, *variant.words(seed), *words], cwd=workspace, check=False).returncode
                if code:
                    sys.exit(code)


def show(results: Sequence[Result]) -> None:
    """Write the tables into the page, and draw the pictures."""
    page = PAGE.read_text()
    for ablation in ABLATIONS:
        of_each = {variant.label: trained(variant, results) for variant in ablation.variants}
        found = {label: seeds for label, seeds in of_each.items() if seeds}
        parts = []
        if len(found) > 1:
            picture = PICTURES / f"ablation-{ablation.name}.png"
            save_figure(seeds_chart([seeds_row(*one) for one in found.items()], ablation.title, INTERVAL), picture)
            parts += [table(found), f"![{ablation.title}](pictures/{picture.name})"]
        if missing := [label for label in of_each if label not in found]:
            parts.append(f"Not trained yet: {'; '.join(missing)}.")
        text = "\n" + "".join(f"{part}\n\n" for part in parts)
        page = with_section(page, f"ablation: {ablation.name}", text)
    PAGE.write_text(page)


def trained(variant: Variant, results: Sequence[Result]) -> list[Result]:
    """The results of a variant, by seed, wherever each was trained; of a seed's the newest."""
    what = str(what_counts(variant.config))
    by_seed = {one.settings.seed: one for one in sorted(results, key=lambda one: one.created) if one.what == what}
    return [by_seed[seed] for seed in sorted(by_seed) if seed in variant.seeds]


def seeds_row(label: str, seeds: Sequence[Result]) -> SeedsRow:
    """A variant in the picture."""
    values = [one.accuracy for one in seeds]
    return SeedsRow(label, values, statistics.fmean(values), *of_the_images(seeds), published=None)


def of_the_images(seeds: Sequence[Result]) -> tuple[float, float]:
    """The mean of the ends of the seeds' intervals: what one test split says of the mean of the seeds."""
    low = statistics.fmean(one.accuracy_low for one in seeds)
    high = statistics.fmean(one.accuracy_high for one in seeds)
    return low, high


def table(found: Mapping[str, Sequence[Result]]) -> str:
    """A line for each variant."""
    lines = [row(COLUMNS), row(["---"] * len(COLUMNS))]
    for label, seeds in found.items():
        low, high = of_the_images(seeds)
        accuracies = [one.accuracy for one in seeds]
        mean = f", mean **{100 * statistics.fmean(accuracies):.2f}**" if len(seeds) > 1 else ""
        pflops = [one.pflop for one in seeds if one.pflop is not None]
        lines.append(
            row([
                label,
                ", ".join(str(one.settings.seed) for one in seeds),
                " and ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies) + mean,
                f"{100 * low:.2f} to {100 * high:.2f}",
                str(seeds[0].settings.train.epochs),
                f"{statistics.fmean(pflops):.3g}" if pflops else "-",
            ])
        )  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
