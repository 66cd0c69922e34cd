"""Rules of the source tree: no import cycles, typed fields, short commands and modules."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT / "videodit", ROOT / "kernels" / "videodit_kernels", ROOT / "data_pipelines" / "videodit_data"]
MODULES = {
    ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in package.rglob("*.py")
}
TREES = {name: ast.parse(file.read_text()) for name, file in MODULES.items()}


def imports(name: str) -> Iterator[str]:
    """Yield the project's modules that a module imports, also in functions and for types alone."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def fields(name: str) -> Iterator[tuple[str, str]]:
    """Yield the annotated fields of a module's dataclasses, and their annotations."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(each) for each in node.decorator_list):
            for field in node.body:
                if isinstance(field, ast.AnnAssign):
                    yield f"{name}:{node.name}.{ast.unparse(field.target)}", ast.unparse(field.annotation)


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: {other for other in imports(name) if other in MODULES and other != name} for name in MODULES}
    assert len(graph) > 300
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")


def test_fields_of_dataclasses_have_types():
    untyped = [
        field
        for name in MODULES
        for field, annotation in fields(name)
        if any(isinstance(part, ast.Name) and part.id == "Any" for part in ast.walk(ast.parse(annotation, mode="eval")))
    ]
    assert not untyped


def test_commands_are_short():
    lines = {
        name: len(file.read_text().splitlines()) for name, file in MODULES.items() if name.startswith("videodit.cli")
    }
    assert sum(lines.values()) < 2000
    assert max(lines.values()) < 150, max(lines, key=lines.__getitem__)


def test_no_module_is_long():
    lines = {name: len(file.read_text().splitlines()) for name, file in MODULES.items()}
    longest = max(lines, key=lines.__getitem__)
    assert lines[longest] <= 500, longest
