"""The process that forecasts trainings, so that the one that asks holds no torch.

Started as `python -m pipeline.training.forecast_child`. Each line of stdin is a request, each line of stdout its
answer, as JSON. It ends when stdin is closed: when its parent is gone.
"""

import json
import os
import sys
from dataclasses import asdict
from typing import Any

import pipeline.training.open_training  # noqa: F401 - all that a training imports
from pipeline.config.schema import RunConfig
from pipeline.errors import SeqpipeError
from pipeline.training import resolve_numerics
from pipeline.training.memory_cache import imports_mb, memory_of
from pipeline.training.speed import speed_of
from tuning.capped.run_capped import tree_memory_mb

_base_mb = 0.0
"""What a process holds that has imported what a training needs, and done nothing yet."""


def main() -> None:
    """Answer until stdin is closed."""
    os.nice(5)  # trainings that are running come first
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            answer = answer_to(json.loads(line))
        except SeqpipeError as error:
            answer = {"error": str(error)}
        except Exception as error:  # whatever torch raises: the next question may have an answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    """The memory of a training; with `images` and `checkpointing` in the request, its speed with these."""
    global _base_mb
    config = RunConfig.model_validate(request["config"])
    # before a kernel is built or the machine is measured
    _base_mb = _base_mb or imports_mb(tree_memory_mb(os.getpid()))
    numerics = resolve_numerics.resolve(config.compute, config.train.batch_size)
    if "images" not in request:
        memory = memory_of(config, request["classes"], numerics)
        return {"base_mb": _base_mb, "device": numerics.device, "memory": asdict(memory)}
    speed = speed_of(config, request["classes"], numerics, request["images"], checkpointing=request["checkpointing"])
    return {"images_per_s": speed}


if __name__ == "__main__":
    main()
