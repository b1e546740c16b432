"""Stands for the process that forecasts trainings; what it does is in the environment. It imports nothing heavy."""

import json
import os
import sys
import time
from pathlib import Path

MEMORY = {
    "weights_mb": 5.0,
    "as_it_is": {
        "training": [{"fixed_mb": 0.0, "mb_per_image": 10.0}],
        "validation": [{"fixed_mb": 0.0, "mb_per_image": 0.1}],
    },
    "checkpointed": {
        "training": [{"fixed_mb": 0.0, "mb_per_image": 4.0}],
        "validation": [{"fixed_mb": 0.0, "mb_per_image": 0.1}],
    },
    "flops_per_image": 1e9,
    "optimizer_scratch_mb": 0.0,
    "optimizer_flops": 12.8e9,
}


def main() -> None:
    """Answer each request, and write it down with this process's id."""
    for line in sys.stdin:
        request = json.loads(line)
        with Path(os.environ["FAKE_REQUESTS"]).open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **request}) + "\n")
        match os.environ.get("FAKE_FORECASTS"):
            case "dies":
                sys.exit(3)
            case "dies in the middle":
                sys.stdout.write('{"base_mb": 3')
                sys.exit(3)
            case "hangs":
                time.sleep(60)
            case "fails once" if request["classes"] == 2:
                answer: dict[str, object] = {"error": "no cuda device here"}
            case _ if "images" in request:
                answer = {"images_per_s": 100.04}
            case _:
                copies = 1.0 if request["config"]["train"]["optimizer"] == "muon" else 2.0
                memory = {**MEMORY, "optimizer_copies": copies}
                answer = {"base_mb": 300.0, "device": "cpu", "memory": memory}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
