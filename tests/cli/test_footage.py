import builtins
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("apache_beam")

from tests.data.footage.sources import make_footage
from videodit.cli.data.build import _split
from videodit.cli.main import main
from videodit.config.files import load

CONFIG = str(Path(__file__).parents[2] / "configs" / "data" / "default.py")
VARIANTS = ("default", "strict", "all", "whole")


@pytest.fixture
def read_terminal(capfd):
    """Return a function that returns the terminal's output since its last call, on one line."""
    return lambda: " ".join("".join(capfd.readouterr()).split())


def test_build_report_and_inspect(tmp_path, read_terminal):
    make_footage(tmp_path / "raw")
    build = ["data", "build", "--input", f"{tmp_path}/raw/[dot]*.mp4", "--out", str(tmp_path / "set")]
    build += ["--config", CONFIG, "--config.analysis.clips.min_seconds=1.5", "--config.recode.preset=ultrafast"]
    build += ["--config.licence=CC0-1.0", "--beam.direct_num_workers=1", "--", "--direct_running_mode=in_memory"]
    assert main(build) == 0
    output = read_terminal()
    assert "3 (video) in 1 shards" in output and "dark.mp4#0-30" in output and "luminance below 0.03" in output
    assert "CC0-1.0): " in output and "apitools" not in output and "WARNING" not in output
    assert main(["data", "report", str(tmp_path / "set")]) == 0
    assert (tmp_path / "set" / "report.html").stat().st_size > 10_000
    assert main(["data", "report", str(tmp_path / "set"), "--out", str(tmp_path / "set" / "report.html")]) == 0
    assert main(["data", "inspect", str(tmp_path / "set")]) == 0
    assert main(build) == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--config.filters.motoin.least=1"], "unknown key 'filters.motoin': did you mean 'filters.motion'?"),
        (["--config.filters.motion.least=much"], "filters.motion.least must be a float or None, not 'much'"),
        (["--config.duplicates.bits=40"], "duplicates.bits is 40: it must be from 0 to 31"),
        (["--confg.licence=x"], "Unknown command line flag 'confg.licence'"),
        (["--", "--runer=DataflowRunner"], "Beam has no option --runer=DataflowRunner"),
        (["--", "--config.licence=x"], "Beam has no option --config.licence=x; the configuration's go before the --"),
        (["--", "--runner=Nope"], "Nope"),
        ([], "matches no video"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(tmp_path, read_terminal, extra, message):
    build = ["data", "build", "--input", str(tmp_path), "--out", str(tmp_path / "set"), "--config", CONFIG]
    assert main([*build, *extra]) == 2
    output = read_terminal()
    assert message in output and "Traceback" not in output and not list(tmp_path.iterdir())


def test_without_the_extra_the_error_names_it(tmp_path, read_terminal, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == "apache_beam":
            raise ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam")
        return real(name, *rest)

    for name in [name for name in sys.modules if name.startswith("videodit_data.footage")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["data", "build", "--input", os.fspath(tmp_path), "--out", "x", "--config", CONFIG]) == 2
    assert "pip install 'videodit[footage]'" in read_terminal()


def test_beam_options_are_separated_from_overrides():
    rest = ["--config.licence=x", "--beam.runner=DataflowRunner", "--", "--region=r", "--config.a=b"]
    assert _split(rest) == (["--config.licence=x"], ["--runner=DataflowRunner", "--region=r", "--config.a=b"])
    assert _split([]) == ([], [])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_build(variant):
    from videodit_data.footage.config import BuildConfig

    assert isinstance(load(f"{CONFIG}:{variant}", among=(BuildConfig,)), BuildConfig)


def test_the_header_names_command_and_result_and_the_error_the_variants():
    from videodit_data.footage.config import BuildConfig

    header = Path(CONFIG).read_text().split('"""')[1]
    assert all(word in header for word in ("Command:", "Hardware:", "Result:", *VARIANTS))
    with pytest.raises(ValueError, match="has the variants default, strict, all, whole, not 'lax'"):
        load(f"{CONFIG}:lax", among=(BuildConfig,))
