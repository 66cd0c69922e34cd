import pytest

from videodit.provenance import command_line

PLAIN = ("train", "--config=c.py:XL", "--workdir", "runs/key", "--key-env=API_KEY", "--config.model.depth=12", "a@b")
KEYED = (
    *("gs://b/x?token=SECRET", "--endpoint=https://h/v1?api-key=SECRET&v=1", "https://user:SECRET@h/x", "x#sig=SECRET"),
    *("--config.data.api_key=SECRET", "--password=SECRET", "?X-Amz-Signature=SECRET"),
)


def test_a_command_without_a_key_stays(monkeypatch):
    monkeypatch.setattr("sys.argv", ["videodit", *PLAIN])
    assert command_line() == ["videodit", *PLAIN]


@pytest.mark.parametrize("argument", KEYED)
def test_a_key_in_a_command_is_replaced(argument, monkeypatch):
    monkeypatch.setattr("sys.argv", ["videodit", argument])
    _, shown = command_line()
    assert "SECRET" not in shown and "[key]" in shown


def test_values_of_secret_variables_are_replaced(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "4f-very-secret")
    monkeypatch.setattr("sys.argv", ["videodit", "--config.data.path=http://h/4f-very-secret/x"])
    assert command_line()[1] == "--config.data.path=http://h/[key]/x"
