"""The wheel, installed into a clean environment, works outside the checkout."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIMEOUT = 300


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a function that runs a command of an environment with the wheel, in an empty folder."""
    folder = tmp_path_factory.mktemp("install")
    tree, environment, empty = folder / "tree", folder / "env", folder / "empty"
    empty.mkdir()
    ignore = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "wheels", "__pycache__", "tests")
    shutil.copytree(ROOT, tree, ignore=ignore)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(tree)], check=True, timeout=TIMEOUT)
    shutil.rmtree(tree)
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (wheel,) = folder.glob("videodit-*.whl")
    options = ["--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, "--python", str(python), "install", *options], check=True, timeout=TIMEOUT)
    # The dependencies of this environment, but not what its .pth files add: the checkout.
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def start(*command: str) -> subprocess.Popen:
        where = [str(environment / "bin" / command[0]), *command[1:]]
        return subprocess.Popen(
            where, cwd=empty, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.mark.slow
def test_configurations_are_found_by_name(installed):
    script = (
        "import videodit, videodit_data, videodit_kernels\n"
        "from videodit.config.io import load\n"
        "from videodit.config.shipped import shipped_folder\n"
        "for name in ('quickstart.py:dit', 'wan.py:1.3b'):\n"
        "    print(load('configs/' + name).model.depth)\n"
        "print(sorted(path.name for path in shipped_folder().rglob('*.py')))\n"
        "print(videodit.__file__)\n"
    )
    output, errors = installed("python", "-c", script).communicate(timeout=TIMEOUT)
    *depths, names, file = output.splitlines() or pytest.fail(errors)
    assert depths == ["6", "30"] and "/env/" in file
    assert names == str(sorted(path.name for path in (ROOT / "configs").rglob("*.py")))
    train = installed("videodit", "train", "--config", "configs/quickstrat.py", "--workdir", "w")
    assert "did you mean quickstart.py?" in " ".join(train.communicate(timeout=TIMEOUT)[1].split())
    assert train.returncode == 2


@pytest.mark.slow
def test_quickstart_starts(installed, tmp_path):
    process = installed("videodit", "quickstart", "--workdir", str(tmp_path / "run"), "--clips", "8")
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "2/5" in line:
            break
    process.send_signal(signal.SIGINT)
    lines += process.communicate(timeout=TIMEOUT)[1].splitlines()
    assert process.returncode == 130, lines
    assert (tmp_path / "run" / "data" / "tokenizer.model").exists()
