"""What a dry run forecasts is what the training does."""

import json
import re

import psutil
from product import Place, settings, tiny

# wide enough for its activations to count: 80 MB for a batch
WORDS = [
    "run",
    "train",
    *tiny("small", model__dims="[128,256]", model__depths="[2,2]", train__epochs=1, data__fraction=0.2),
]


def forecast(place: Place, *words: str) -> dict:
    done = place.run(*WORDS, "--dry-run", "--json", *words)
    assert done.code == 0, done.err
    [model] = json.loads(done.out)["models"]
    return model["forecast"]


def test_a_training_under_a_cap_does_what_was_forecast(place):
    whole = forecast(place)
    half = forecast(place, *settings(compute__micro_batch_size=64))
    assert whole["micro_batch_size"] == 128
    assert half["peak_mb"] < whole["peak_mb"]
    cap = f"{(whole['peak_mb'] + half['peak_mb']) / 2:.0f}"
    fitted = forecast(place, "--max-memory-mb", cap)
    assert (fitted["micro_batch_size"], fitted["checkpointing"], fitted["fits"]) == (64, False, True)
    assert not (place.root / ".seqpipe").exists()
    assert place.run("run", "prepare", *WORDS[2:]).code == 0
    done = place.run(*WORDS, "--max-memory-mb", cap, "--json")
    assert done.code == 0, done.err
    assert f"64 images at once, to stay within {cap} MB (--max-memory-mb)" in done.err
    [model] = json.loads(done.out)["models"]
    assert model["training"]["peak_memory_mb"] <= fitted["peak_mb"]
    numerics = model["training"]["numerics"]
    assert (numerics["micro_batch_size"], numerics["activation_checkpointing"]) == (64, False)


def test_what_does_not_fit_is_forecast_and_refused_with_the_same_figure(place):
    assert place.run("run", "prepare", *WORDS[2:]).code == 0  # its imports are held beside a training in one command
    least = forecast(place, "--max-memory-mb", "100")
    assert (least["fits"], least["micro_batch_size"], least["checkpointing"]) == (False, 1, True)
    refused = place.run(*WORDS, "--max-memory-mb", f"{least['peak_mb'] - 30:.0f}")
    assert refused.code == 5, refused.err
    found = re.search(r"this training needs (\d+) MB with 1 image at once and activation", refused.errors[0])
    assert abs(int(found[1]) - least["peak_mb"]) < 25


def test_a_dry_run_leaves_no_process(place):
    forecast(place)
    assert not [
        process.pid
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(place.root)
        and "pipeline.training.forecast_child" in (process.info["cmdline"] or [])
    ]
