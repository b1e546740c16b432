"""What `seqpipe config recipes` shows: what each recipe sets, and one line on what was measured with it."""

from collections.abc import Sequence
from dataclasses import asdict

from pipeline.cli.console import emit, emit_json, table
from pipeline.config.keys import as_words
from pipeline.config.recipes import RECIPES, Variant


def show_recipes(recipe: str | None, model: str | None, as_json: bool) -> None:
    """The recipes, or the one that is named, for every model, or the one that is named."""
    shown = [
        (name, of_model, classes, variant)
        for name, one in RECIPES.items()
        for of_model, variants in one.variants.items()
        for classes, variant in variants.items()
        if recipe in (None, name) and model in (None, of_model)
    ]
    if as_json:
        rows = [
            {
                "recipe": name,
                "purpose": RECIPES[name].purpose,
                "model": of_model,
                "classes": classes,
                "settings": dict(variant.settings),
                "evidence": asdict(variant.evidence) if variant.evidence else None,
            }
            for name, of_model, classes, variant in shown
        ]
        emit_json({"recipes": rows})
        return
    for number, name in enumerate(dict.fromkeys(name for name, *_ in shown)):
        if number:
            emit()
        emit(f"{name}: {RECIPES[name].purpose}")
        _show_recipe([(of_model, classes, variant) for which, of_model, classes, variant in shown if which == name])


def _show_recipe(shown: Sequence[tuple[str, str, Variant]]) -> None:
    """What all of its variants set, in a line; then what each sets beside that, and what was measured with it."""
    settings = [variant.settings for _, _, variant in shown]
    shared = {
        key: value for key, value in settings[0].items() if all(key in one and one[key] == value for one in settings)
    }
    if shared:
        emit(f"sets {' '.join(as_words(shared))}")
    table(
        ["model", "classes", "and" if shared else "sets", "measured"],
        [
            [
                of_model,
                classes,
                " ".join(as_words({key: value for key, value in variant.settings.items() if key not in shared}))
                or "-",
                variant.evidence.in_words() if variant.evidence else "not yet",
            ]
            for of_model, classes, variant in shown
        ],
    )
