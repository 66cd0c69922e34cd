"""Launching, against stubs of gcloud and xpk that log their arguments and answer from a script of states."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "experiments" / "launch"
TRAINING = ["--config", "configs/dit.py:XL", "--workdir", "/mnt/videodit/runs/a b", "--config.seed=it's"]
TPU_VM = ["--name", "xl", "--zone", "us-east5-b", "--bucket", "my-bucket", "--poll", "0"]
XPK = ["--name", "xl", "--cluster", "cubes", "--image", "registry/videodit:1"]

# Prints the next answer for the command among its arguments: a state, or an exit status of what ssh runs.
STUB = """#!{python} -IS
import json, os, sys
folder, program = os.environ["STUB"], os.path.basename(sys.argv[0])
with open(folder + "/log", "a") as log:
    log.write(json.dumps([program, *sys.argv[1:]]) + "\\n")
text = " ".join(sys.argv)
for what, answers in json.load(open(folder + "/answers")).items():
    if what in text:
        counter = folder + "/" + what.replace(" ", "_").replace("/", "_")
        calls = os.path.getsize(counter) if os.path.exists(counter) else 0
        open(counter, "a").write(".")
        answer = answers[min(calls, len(answers) - 1)]
        if isinstance(answer, int):
            sys.exit(answer)
        print(answer)
"""


class Stubs:
    def __init__(self, path: Path):
        self.path = path
        (path / "bin").mkdir(parents=True)
        self.answer()
        for name in ("gcloud", "xpk", "pkill"):
            self.executable(path / "bin" / name, STUB.replace("{python}", sys.executable))
        self.executable(path / "bin" / "git", "#!/bin/sh\n")  # the tests need no checkout
        self.env = {k: v for k, v in os.environ.items() if k != "LIBTPU_INIT_ARGS"}
        self.env |= {"PATH": f"{path / 'bin'}:{os.environ['PATH']}", "STUB": str(path), "TMPDIR": str(path)}

    def executable(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, **answers: list) -> None:
        """Set the answers in turn: states of `describe`, else exit statuses; the last answer repeats."""
        names = {"train": "worker.sh train", "setup": "worker.sh setup", "create": "queued-resources create"}
        answers = {"describe": ["", "ACTIVE"], "pkill": [1]} | answers
        (self.path / "answers").write_text(json.dumps({names.get(k, k): v for k, v in answers.items()}))

    def run(self, script: str, *args: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(LAUNCH / script), *args],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def log(self) -> list[list[str]]:
        path = self.path / "log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def steps(self) -> list[str]:
        """Return the short names of the gcloud commands, without the queries of the state."""
        return [step for step in map(short, self.log()) if step != "describe"]


def short(call: list[str]) -> str:
    command = next((a for a in call if a.startswith("--command=")), "")
    if "worker.sh" in command:
        return re.search(r"worker.sh (\w+)", command)[1]
    return call[4]


@pytest.fixture
def stubs(tmp_path):
    return Stubs(tmp_path / "stubs")


def tpu(*args: str, type: str = "v6e-256", training=TRAINING) -> list[str]:
    return ["tpu_vm.sh", *TPU_VM, "--type", type, *args, "--", *training]


def printed_commands(result: subprocess.CompletedProcess, program: str) -> list[list[str]]:
    return [words for words in map(shlex.split, result.stdout.splitlines()) if words[0] == program]


def flags_of(generation: str) -> str:
    line = f"source {shlex.quote(str(LAUNCH / 'libtpu_flags.sh'))} && libtpu_flags {generation}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.strip()


def test_single_slice(stubs):
    result = stubs.run(*tpu("--project", "p"))
    assert result.returncode == 0, result.stderr
    assert stubs.steps() == ["create", "scp", "setup", "train"]
    create, send, setup, train = [call for call in stubs.log() if short(call) != "describe"]
    where = ["--zone=us-east5-b", "--project=p"]
    assert create == [
        *["gcloud", "compute", "tpus", "queued-resources", "create", "xl", *where],
        *["--accelerator-type=v6e-256", "--runtime-version=v2-alpha-tpuv6e", "--node-id=xl"],
    ]
    assert send[3:5] == ["tpu-vm", "scp"] and send[6:] == ["xl:videodit.tar", *where, "--worker=all"]
    assert setup[-1].endswith("worker.sh mount my-bucket")
    assert train[:-1] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "xl", *where, "--worker=all"]
    words = shlex.split(train[-1].removeprefix("--command="))
    assert words[:4] == ["cd", "videodit", "&&", f"LIBTPU_INIT_ARGS={flags_of('v6e')}"]
    assert words[4:] == ["bash", "experiments/launch/worker.sh", "train", *TRAINING]
    assert "queued-resources delete xl" in result.stderr


def test_several_slices_on_spot(stubs):
    assert stubs.run(*tpu("--slices", "3", "--spot", type="v5p-512")).returncode == 0
    create = next(call for call in stubs.log() if "create" in call)
    assert create[-3:] == ["--node-count=3", "--node-prefix=xl", "--spot"]
    assert "--runtime-version=v2-alpha-tpuv5" in create and not any("node-id" in a for a in create)
    for step in ("setup", "train"):
        assert sorted(call[5] for call in stubs.log() if short(call) == step) == ["xl-0", "xl-1", "xl-2"]
    assert stubs.steps() == ["create", *["scp"] * 3, *["setup"] * 3, *["train"] * 3]


@pytest.mark.parametrize(
    ("state", "status"),
    [("SUSPENDED", 143), ("SUSPENDING", 255), ("FAILED", 1), ("SUSPENDED", 2), ("SUSPENDED", 0)],
)
def test_preemption_restarts_the_run(stubs, state, status):
    stubs.answer(describe=["", "PROVISIONING", "ACTIVE", state, "", "ACTIVE"], train=[status, 0])
    result = stubs.run(*tpu("--spot"))
    assert result.returncode == 0, result.stderr
    once = ["create", "scp", "setup", "train"]
    assert stubs.steps() == [*once, "delete", *once]
    delete = next(call for call in stubs.log() if "delete" in call)
    assert delete[4:] == ["delete", "xl", "--zone=us-east5-b", "--force", "--quiet"]


def test_a_failed_request_is_repeated(stubs):
    stubs.answer(describe=["", "WAITING_FOR_RESOURCES", "FAILED", "FAILED", "ACTIVE"])
    assert stubs.run(*tpu()).returncode == 0
    assert stubs.steps() == ["create", "delete", "create", "scp", "setup", "train"]


def test_mistake_stops_at_once(stubs):
    stubs.answer(describe=["", "ACTIVE"], train=[2])
    result = stubs.run(*tpu())
    assert result.returncode == 2
    assert stubs.steps() == ["create", "scp", "setup", "train"]
    assert "the training refuses its arguments" in result.stderr


def test_mistake_outweighs_what_it_did_to_other_slices(stubs):
    stubs.answer(describe=["", "ACTIVE"], **{"ssh xl-0 --zone=us-east5-b --worker=all --command=cd": [1], "train": [2]})
    assert stubs.run(*tpu("--slices", "2")).returncode == 2
    assert stubs.steps().count("train") == 2


def test_failure_on_a_live_slice_runs_again_there(stubs):
    stubs.answer(describe=["", "ACTIVE"], train=[1, 0])
    assert stubs.run(*tpu()).returncode == 0
    assert stubs.steps() == ["create", "scp", "setup", "train", "scp", "setup", "train"]


def test_failed_setup_is_no_mistake(stubs):
    stubs.answer(describe=["", "ACTIVE"], setup=[2, 0])
    assert stubs.run(*tpu()).returncode == 0
    assert stubs.steps() == ["create", "scp", "setup", "scp", "setup", "train"]


def test_gives_up(stubs):
    stubs.answer(describe=["", "ACTIVE"], train=[1])
    result = stubs.run(*tpu("--attempts", "2"))
    assert result.returncode == 1 and stubs.steps().count("train") == 2
    assert "gave up after 2 attempts" in result.stderr


def test_an_active_resource_is_reused_and_deleted(stubs):
    stubs.answer(describe=["ACTIVE"])
    assert stubs.run(*tpu("--delete")).returncode == 0
    assert stubs.steps() == ["scp", "setup", "train", "delete"]


def test_refused_creation_stops(stubs):
    stubs.answer(describe=[""], create=[1])
    result = stubs.run(*tpu())
    assert result.returncode == 2 and stubs.steps() == ["create"]


@pytest.mark.parametrize("options", [[], ["--slices", "2", "--spot", "--delete"], ["--runtime", "my image"]])
def test_dry_run_prints_what_a_real_run_runs(stubs, options):
    dry = stubs.run(*tpu(*options, "--dry-run"))
    assert dry.returncode == 0, dry.stderr
    assert stubs.log() == [] and not list(stubs.path.glob("*.tar"))
    assert stubs.run(*tpu(*options)).returncode == 0
    key = str if "--slices" in options else lambda call: 0  # slices run at once, in no order
    assert sorted(printed_commands(dry, "gcloud"), key=key) == sorted(stubs.log(), key=key)


@pytest.mark.parametrize("args", [["--type", "v6e-256", "--slices", "2"], ["--type", "tpu7x-4x4x4", "--attach", "b"]])
def test_xpk(stubs, args):
    dry = stubs.run("xpk.sh", *XPK, *args, "--attempts", "5", "--dry-run", "--", *TRAINING)
    assert dry.returncode == 0 and stubs.log() == []
    assert stubs.run("xpk.sh", *XPK, *args, "--attempts", "5", "--", *TRAINING).returncode == 0
    assert printed_commands(dry, "xpk") == stubs.log()
    *attach, create = stubs.log()
    assert create[:5] == ["xpk", "workload", "create", "--workload=xl", "--cluster=cubes"]
    options = dict(a.split("=", 1) for a in create if "=" in a)
    assert options["--device-type"] == args[1] and options["--num-slices"] == ("2" if "--slices" in args else "1")
    assert options["--max-restarts"] == "4" and options["--docker-image"] == "registry/videodit:1"
    assert options["--env"] == f"LIBTPU_INIT_ARGS={flags_of(args[1].split('-')[0])}"
    assert shlex.split(options["--command"])[-len(TRAINING) - 1 :] == ["train", *TRAINING]
    assert len(attach) == ("--attach" in args)
    if attach:
        assert {"--bucket=b", "--mount-point=/mnt/videodit", "--readonly=false"} <= set(attach[0])


def without(args: list[str], option: str) -> list[str]:
    at = args.index(option)
    return args[:at] + args[at + 2 :]


GOOD = {"tpu_vm.sh": [*TPU_VM, "--type", "v6e-8"], "xpk.sh": [*XPK, "--type", "v6e-8"]}
MISTAKES = [
    *[(s, without(a, o), TRAINING, o) for s, a in GOOD.items() for o in a[::2] if o != "--poll"],
    *[(s, a, without(TRAINING, o), o) for s, a in GOOD.items() for o in ("--config", "--workdir")],
    ("tpu_vm.sh", [*GOOD["tpu_vm.sh"], "--slices", "0"], TRAINING, "--slices"),
    ("tpu_vm.sh", [*GOOD["tpu_vm.sh"], "--attempts"], TRAINING, "--attempts needs a value"),
    ("tpu_vm.sh", [*GOOD["tpu_vm.sh"], "--nodes", "2"], TRAINING, "--nodes"),
    ("tpu_vm.sh", [*TPU_VM, "--type", "v9-8"], TRAINING, "v9-8"),
    ("tpu_vm.sh", [*TPU_VM, "--type", "tpu7x-128"], TRAINING, "xpk.sh"),
    ("xpk.sh", GOOD["xpk.sh"], [*TRAINING, "--distributed"], "--distributed"),
    ("tpu_vm.sh", GOOD["tpu_vm.sh"], ["--config", "c.py", "--workdir", "runs/xl"], "/mnt/videodit"),
]


@pytest.mark.parametrize(("script", "args", "training", "word"), MISTAKES)
def test_mistakes_are_one_sentence(stubs, script, args, training, word):
    result = stubs.run(script, *args, "--", *training)
    assert result.returncode == 2 and stubs.log() == [] and result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("videodit launch: ") and word in result.stderr


@pytest.mark.parametrize("script", GOOD)
def test_help(stubs, script):
    result = stubs.run(script, "--help")
    assert result.returncode == 0 and result.stdout.startswith(f"usage: {script}") and not result.stderr


@pytest.mark.parametrize("generation", ["v5e", "v5p", "v6e", "tpu7x"])
def test_every_generation_has_flags(stubs, generation):
    flags = flags_of(generation).split()
    names = [flag.split("=")[0] for flag in flags]
    assert len(names) >= 5 and len(set(names)) == len(names)
    if generation != "v5e":  # whose compiler alone takes it
        assert "--xla_tpu_enable_async_collective_fusion=true" not in flags
    assert all(re.fullmatch(r"--xla_[a-z0-9_]+=\w+", flag) for flag in flags)


def test_flags_of_the_environment_win(stubs):
    assert stubs.run(*tpu(), LIBTPU_INIT_ARGS="--mine=1").returncode == 0
    assert "LIBTPU_INIT_ARGS=--mine=1 bash" in stubs.log()[-2][-1]


@pytest.mark.parametrize("script", sorted(p.name for p in LAUNCH.glob("*.sh")))
def test_bash_reads_it(script):
    subprocess.run(["bash", "-n", str(LAUNCH / script)], check=True)
    assert max(map(len, (LAUNCH / script).read_text().splitlines())) <= 120


def test_sky_yaml():
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    assert set(task) == {"name", "workdir", "resources", "envs", "file_mounts", "setup", "run"}
    assert task["resources"]["use_spot"] is True and task["resources"]["accelerators"].startswith("tpu-")
    assert task["resources"]["job_recovery"]["max_restarts_on_errors"] > 0
    assert task["file_mounts"] == {"/mnt/videodit": {"source": "gs://${BUCKET}", "mode": "MOUNT"}}
    used = set(re.findall(r"\$\{?([A-Z]+)\b", task["run"] + str(task["file_mounts"]))) - {"LIBTPU"}
    assert used == set(task["envs"])
    assert (LAUNCH / "worker.sh").exists() and "worker.sh train" in task["run"]
    subprocess.run(["bash", "-n", "-c", task["setup"] + task["run"]], check=True)


@pytest.fixture
def host(stubs, tmp_path):
    """Return a function that starts a host's worker, whose training is a stub.

    The stub ends with 0 on SIGTERM, or else with the status that is passed.
    """
    worker = tmp_path / "videodit" / "experiments" / "launch" / "worker.sh"
    stubs.executable(worker, (LAUNCH / "worker.sh").read_text())
    stubs.executable(
        tmp_path / "videodit" / ".venv" / "bin" / "videodit",
        f"#!{sys.executable} -IS\nimport os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print(os.getpid(), *sys.argv[1:], flush=True)\n"
        "status = os.environ['STATUS']\n"
        "time.sleep(30) if status == 'long' else sys.exit(int(status))\n",
    )
    return lambda status: subprocess.Popen(
        ["bash", str(worker), "train", *TRAINING],
        env=stubs.env | {"STATUS": status},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("status", [0, 1, 2])
def test_worker_passes_the_status_on(host, status):
    with host(str(status)) as worker:
        words = worker.stdout.read().split(maxsplit=1)[1].strip()
        assert words == " ".join(["train", "--distributed", *TRAINING])
    assert worker.returncode == status


@pytest.mark.parametrize(("to_worker", "status"), [(True, 143), (False, 0)])
def test_worker_tells_a_lost_machine_from_a_stopped_run(host, to_worker, status):
    with host("long") as worker:
        training = int(worker.stdout.readline().split()[0])
        os.kill(worker.pid if to_worker else training, signal.SIGTERM)
        assert worker.wait(timeout=20) == status
    with pytest.raises(ProcessLookupError):
        os.kill(training, 0)
