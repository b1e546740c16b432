"""`--max-memory-mb` as a user meets it."""

import json
import re
import signal
import time

from product import LONG, Place, leave, tiny

# wide enough for its activations to count: about 110 MB for a batch
WORDS = tiny("small", model__dims="[128,256]", model__depths="[2,2]", train__epochs=1, data__fraction=0.2)
ENOUGH = ["--max-memory-mb", "2000"]


def numerics(place: Place) -> dict[str, object]:
    (folder,) = (place.root / ".seqpipe" / "stages" / "train").glob("*")
    return json.loads((folder / "numerics.json").read_bytes())


def test_a_cap_that_is_too_low_says_what_is_needed_and_that_is_enough(place):
    refused = place.run("run", "train", *WORDS, "--max-memory-mb", "60")
    assert refused.code == 5
    assert "Traceback" not in refused.err
    imports = int(re.search(r"60 MB are too few: what this command imports takes (\d+) MB", refused.errors[0])[1])
    refused = place.run("run", "train", *WORDS, "--max-memory-mb", str(imports + 150))
    assert refused.code == 5
    assert len(refused.errors) == 2
    needed = int(re.search(r"MB are too few: this training needs (\d+) MB", refused.errors[0])[1])
    assert "--max-memory-mb" in refused.errors[1]
    done = place.run("run", "train", *WORDS, "--max-memory-mb", str(needed + 30), "--json")
    assert done.code == 0, done.err
    (model,) = json.loads(done.out)["models"]
    assert numerics(place)["micro_batch_size"] < 128
    assert imports < model["training"]["peak_memory_mb"] <= needed + 30


def test_a_command_that_passes_its_cap_is_ended_there_and_goes_on_with_more(place):
    words = [*WORDS, "--set", "compute.micro_batch_size=128"]
    assert place.run("run", "prepare", *words).code == 0
    left = place.run("run", "train", *words, "--max-memory-mb", "260")
    assert left.code == 5, left.err
    assert len(left.errors) == 2
    assert "what was saved before is kept" in left.errors[0]
    assert place.partial() is not None
    assert place.run("run", "train", *words, *ENOUGH).code == 0


def test_a_capped_training_ends_in_the_same_weights_and_ctrl_c_and_sigterm_leave_in_order(place, undisturbed):
    for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
        process = place.start("run", "train", *LONG, *ENOUGH)
        assert place.wait_for(place.checkpoints, process)
        time.sleep(0.2)
        left = leave(process, number)
        assert left.code == 128 + number, left.err
        assert left.seconds < 5
        assert left.errors == [f"seqpipe: interrupted ({name}); the same command resumes from where it was"]
        assert place.checkpoints()[-1].name > "step-00000000.json"
    done = place.run("run", "train", *LONG, *ENOUGH)
    assert done.code == 0, done.err
    assert place.result() == undisturbed


def test_with_nothing_to_do_nothing_is_capped(place):
    words = tiny(train__epochs=1)
    assert place.run("run", "train", *words).code == 0
    done = place.run("run", "train", *words, "--max-memory-mb", "10")
    assert done.code == 0, done.err


def test_errors_of_a_capped_command_and_its_exit_code_are_its_own(place):
    done = place.run("run", "prepare", *tiny(data__fraction=0.001), *ENOUGH)
    assert done.code == 2
    assert len(done.errors) <= 2
    assert "airplane" in done.errors[0]
    assert place.run("run", "train", *LONG, *ENOUGH, "--max-time", "2s").code == 4


def test_recomputing_blocks_is_refused_for_a_model_without_any(place):
    refused = place.run("run", "train", *tiny("vanilla", compute__recompute="true"))
    assert refused.code == 2
    assert "compute.recompute is for small and medium" in refused.errors[0]
