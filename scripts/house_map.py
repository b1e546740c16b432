"""The map of the house in docs/design.md: every module with the first line of its docstring.

python scripts/house_map.py            print it
python scripts/house_map.py --write    replace the one in docs/design.md
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "design.md"
PACKAGES = ("pipeline", "sequencer_models", "tuning")
BEGIN, END = "<!-- map -->\n", "<!-- end of map -->\n"


def main() -> None:
    """Print the map, or write it into the page."""
    if "--write" in sys.argv[1:]:
        before, begin, rest = PAGE.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            sys.exit(f"{PAGE}: the map goes between {BEGIN.strip()} and {END.strip()}, which are not there")
        PAGE.write_text(f"{before}{begin}{house_map()}{end}{after}")
    else:
        sys.stdout.write(house_map())


def house_map() -> str:
    """The map as it stands in the page: a folder or a module a line, indented by depth."""
    lines = [line for package in PACKAGES for line in _lines(ROOT / package, depth=0)]
    return "".join(f"    {line}\n" for line in lines)


def _lines(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    inside = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    for path in inside:
        if path.is_dir() and (path / "__init__.py").is_file():
            yield from _lines(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield _line(path.name, path, depth + 1)


def _line(name: str, module: Path, depth: int) -> str:
    said = (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")[0]
    return f"{'  ' * depth + name:<27} {said}"


if __name__ == "__main__":
    main()
