"""A benchmark is a script, and `benchmarks/` is on the path when it runs."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
