"""Registries: objects chosen by name, registered ones and those in any importable module."""

import pytest

from videodit.registry import Registry


@pytest.fixture
def registry():
    registry = Registry("color")
    registry.register("red")(1)
    registry.register("green")(2)
    return registry


def test_a_name_finds_what_was_registered(registry):
    assert registry.get("red") == 1 and registry.names() == ["green", "red"]


def test_a_module_in_the_working_directory_is_imported(registry, tmp_path, monkeypatch):
    (tmp_path / "own_colors.py").write_text("blue = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    assert registry.get("own_colors:blue") == 3
    with pytest.raises(ValueError, match=r"color 'own_colors:pink' cannot be imported: .*no attribute 'pink'"):
        registry.get("own_colors:pink")
    with pytest.raises(ValueError, match="color 'nowhere:pink' cannot be imported: No module named 'nowhere'"):
        registry.get("nowhere:pink")


@pytest.mark.parametrize(("name", "hint"), [("gren", "did you mean 'green'"), ("x", "there are green, red, or MODULE")])
def test_an_unknown_name_is_answered_by_the_nearest_or_by_all(registry, name, hint):
    with pytest.raises(ValueError, match=f"there is no color '{name}': {hint}"):
        registry.get(name)


def test_a_name_is_taken_once(registry):
    registry.register("red")(1)
    with pytest.raises(ValueError, match="there are two of color 'red'"):
        registry.register("red")(5)


def test_what_a_notebook_defines_once_more_replaces_what_it_was(registry):
    def define(value):
        def blue():
            return value

        return blue

    for value in (1, 2):
        registry.register("blue")(define(value))
    assert registry.get("blue")() == 2
