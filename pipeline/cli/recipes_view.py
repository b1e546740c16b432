"""What `seqpipe config recipes` shows: what each recipe sets, and one line on what was measured with it."""

from dataclasses import asdict

from pipeline.cli.console import emit, emit_json, table
from pipeline.config.keys import as_words
from pipeline.config.recipes import RECIPES


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
    for name in dict.fromkeys(name for name, *_ in shown):
        emit(f"{name}: {RECIPES[name].purpose}")
    table(
        ["recipe", "model", "classes", "sets", "evidence"],
        [
            [
                name,
                of_model,
                classes,
                " ".join(as_words(variant.settings)) or "-",
                variant.evidence.in_words() if variant.evidence else "not measured yet",
            ]
            for name, of_model, classes, variant in shown
        ],
    )
