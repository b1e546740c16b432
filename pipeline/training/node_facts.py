"""What a training computes with on this machine where its config leaves that open, asked of a process of its own.

python -m pipeline.training.node_facts        prints it as JSON; builds the kernel at its first use
"""

import json
import sys

from pipeline.config.schema import ComputeConfig
from pipeline.training import resolve_numerics


def main() -> None:
    """Print the facts."""
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print
    numerics = resolve_numerics.resolve(ComputeConfig(), batch_size=1)
    facts = {
        "device": numerics.device,
        "precision": numerics.precision,
        "kernel": numerics.kernel.split()[0],  # the library's digest is the processor's affair
        "processor": numerics.cpu,
    }
    answer.write(json.dumps(facts) + "\n")
    answer.flush()


if __name__ == "__main__":
    main()
