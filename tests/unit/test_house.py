"""The shape of the code: what import-linter does not see."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("pipeline", "sequencer_models", "tuning")
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (REPOSITORY / package).rglob("*.py")
}


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports anywhere: at the top, in a function, for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & MODULES.keys() or {node.module} & MODULES.keys()


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_imports_go_round_in_a_circle_those_in_functions_and_for_types_included():
    assert len(MODULES) > 100
    assert circle({name: set(imported(path)) for name, path in MODULES.items()}) == []


def test_a_circle_would_be_found(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    from pipeline.stages import runner\n")
    assert list(imported(tmp_path / "a.py")) == ["pipeline.stages.runner"]
    assert circle({"a": {"b"}, "b": {"a"}, "c": {"a"}})


def test_the_page_on_the_design_has_a_map_of_every_module():
    script = REPOSITORY / "scripts" / "house_map.py"
    house_map = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert house_map in (REPOSITORY / "docs" / "design.md").read_text(), "`make map` writes it anew"
    assert house_map.count(".py ") == sum(path.name != "__init__.py" for path in MODULES.values())
