"""The kept results as Markdown, for README: the targets, then every benchmark's tables.

python benchmarks/table.py [NAME ...] [--settings 2-threads ...]
"""

import argparse
import importlib

from measuring import records, settings, targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks, or `targets`; all by default")
    parser.add_argument("--settings", nargs="+", choices=list(settings.BY_NAME), default=list(settings.BY_NAME))
    options = parser.parse_args()
    if not options.names or "targets" in options.names:
        print(targets.table())
    for name in options.names or records.names():
        record = records.read(name)
        if record is None or name.startswith("spike_"):
            continue
        chosen = {key: part for key, part in record["settings"].items() if key in options.settings}
        for table in importlib.import_module(name).BENCHMARK.tables(record | {"settings": chosen}):
            print(table)


if __name__ == "__main__":
    main()
