"""Commands on hostile input, traced and without a network: they open no file that is not theirs, and no socket."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest
from videodit_data import video
from videodit_data.storage import manifest
from videodit_data.storage.records import from_video, write_packed

TINY = Path(__file__).with_name("tiny.py")
CONFIG = Path(__file__).parents[2] / "configs" / "data" / "default.py"
# Where Python, its packages, the C library and the kernel's facts about the machine are read from.
SYSTEM = re.compile(
    r"/(usr|lib|lib64|opt)/|/etc/(hosts|host\.conf|gai\.conf|resolv\.conf|ld\.so|localtime|mime\.types|nsswitch\.conf|passwd|ssl/|protocols|apache2/)|"
    r"/root/\.(pyenv|cache|config|local|keras|nv|matplotlib)|/dev/(null|urandom|random|tty|shm/|full)|/sys/|"
    r"/proc/(self/(?!environ)|cpuinfo|meminfo|stat|sys/|filesystems|version|\d+/(stat|status|task|ns|cgroup|maps|exe|mountinfo))"
)
CALL = re.compile(r'^\d+\s+(\w+)\((?:AT_FDCWD, |\d+<?[^,]*, )?"?([^",]*)"?.*\) += (-?\d+)')


def trace(log: Path, *arguments: object, loopback: bool = False) -> tuple[int, str, list[str], list[str]]:
    """Run a command under strace, without a network; return its status, what it prints, opened paths and sockets.

    Args:
        loopback: of a pipeline whose workers talk to each other: connections within the machine do not count, but for
            those to the discard port, which the hostile names address.
    """
    command = [
        *(() if loopback else ("unshare", "-n")),
        "strace",
        "-f",
        "-qq",
        "-s",
        "4096",
        "-e",
        "trace=open,openat,openat2,socket,connect",
    ]
    command += ["-o", str(log), sys.executable, "-m", "videodit.cli.main", *map(str, arguments)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    opened, sockets = [], []
    for line in log.read_text(errors="replace").splitlines():
        if (call := CALL.match(line)) is None:
            continue
        name, path, result = call.groups()
        if name == "connect" or "AF_INET" in line:
            within = loopback and (name == "socket" or re.search(r'"(127\.0\.0\.1|::1|::ffff:127\.0\.0\.1)"', line))
            if "/nscd/" not in line and (not within or "htons(9)" in line):  # the C library asks for a user's name
                sockets.append(line)
        elif int(result) >= 0:
            opened.append(path)
    return done.returncode, done.stdout + done.stderr, opened, sockets


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """Skip where programs cannot be traced, or not without a network."""
    if shutil.which("strace") is None or shutil.which("unshare") is None:
        pytest.skip("needs strace and unshare")
    probe = ["unshare", "-n", "strace", "-o", "/dev/null", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no program may be traced without a network here")


def clip(folder: Path, name: str, caption: str | None = "a red ball") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3), np.uint8)
    path.write_bytes(video.encode(None, frames, 8.0))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of footage that tries to have other files and addresses opened, beside a secret."""
    root = tmp_path_factory.mktemp("hostile")
    secret, folder = root / "forbidden" / "key.txt", root / "in"
    secret.parent.mkdir()
    secret.write_text("the key")
    good = clip(folder, "good.mp4")
    for name in ("http:/127.0.0.1:9/x.mp4", "tcp:/127.0.0.1:9/x.mp4", "pipe:0.mp4", "data:,x.mp4", "concat:a|b.mp4"):
        clip(folder, name)
    for name in ("-i.mp4", "file:x.mp4", "subfile,,start,0,end,9,,:x.mp4", "%05d.png.mp4", "*.mp4"):
        clip(folder, name)
    playlists = {
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "remote.mp4": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {secret}\n",
        "drawing.png": f"<svg xmlns='http://www.w3.org/2000/svg'><image href='file://{secret}'/></svg>",
        "program.jpg": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + str(secret) + ") (r) file\n",
    }
    for name, text in playlists.items():
        (folder / name).write_text(text)
        (folder / name).with_suffix(".txt").write_text("a red ball")
    links = {"environment": "/proc/self/environ", "outside": str(secret), "zero": "/dev/zero", "nowhere": "/no/where"}
    for name, target in links.items():
        shutil.copy(good, folder / f"{name}.mp4")
        (folder / f"{name}.txt").symlink_to(target)
        (folder / f"{name}-video.mp4").symlink_to(target)
        (folder / f"{name}-video.txt").write_text("a red ball")
    (folder / "above").symlink_to(root)
    os.mkfifo(folder / "fifo.mp4")
    (folder / "fifo.txt").write_text("a red ball")
    return root


def check(root: Path, result: tuple[int, str, list[str], list[str]], *own: Path) -> None:
    """Assert that a traced command opened the system's files and its own alone, and printed no traceback."""
    _, text, opened, sockets = result
    assert "Traceback" not in text, text
    assert not sockets, sockets[:5]
    repository = Path(__file__).parents[2]
    allowed = [str(path) for path in (*own, repository, Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path))]
    allowed += [os.path.realpath(path) for path in allowed]
    foreign = {path for path in opened if path.startswith("/") and not SYSTEM.match(path)}
    foreign = {path for path in foreign if not any(path.startswith(each) for each in allowed if each != ".")}
    foreign = {path for path in foreign if not path.startswith("/tmp/") or path.startswith(str(root))}
    assert not foreign, sorted(foreign)[:20]
    assert not [path for path in opened if path.endswith(("/forbidden/key.txt", "/environ", "/dev/zero"))]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ingest", "build"])
def test_footage_has_no_other_file_and_no_address_opened(hostile, command, tmp_path):
    out = tmp_path / "set"
    inputs = [hostile / "in"] if command == "ingest" else ["--input", hostile / "in", "--config", CONFIG]
    result = trace(tmp_path / "trace", "data", command, *inputs, "--out", out, loopback=command == "build")
    check(hostile, result, hostile / "in", out, tmp_path)
    if command == "ingest":
        assert result[0] == 0 and manifest.load(out).clips >= 6, result[1]
        assert "the key" not in (out / manifest.FILE).read_text()
    else:  # a clip of nine frames is too short for it, which it knows once it has decoded all
        assert "No clip of 16 sources is kept" in result[1]


@pytest.mark.slow
@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.mp4", "/etc/hostname", "pipe:0", "concat:/etc/hostname"])
def test_a_record_has_no_path_or_address_opened(address, tmp_path):
    """A record's video that is a text is refused by whoever reads it."""
    frames = np.zeros((9, 32, 32, 3), np.uint8)
    record = from_video(
        "a", video.encode(None, frames, 8.0), ["x"], fps=8.0, height=32, width=32, frames=9, source="s", licence="l"
    )
    folder = tmp_path / "set"
    manifest.build(folder, lambda numbers: [record for _ in numbers], 8, info={})
    (shard,) = manifest.load(folder).shards
    values = msgpack.unpackb(record.pack(), strict_map_key=False) | {"video": address}
    write_packed(folder / shard.name, [msgpack.packb(values)] * 8)
    file, text = folder / shard.name, (folder / manifest.FILE).read_text()
    text = text.replace(shard.sha256, manifest.sha256(file))
    text = text.replace(f'"bytes": {shard.bytes}', f'"bytes": {file.stat().st_size}')
    (folder / manifest.FILE).write_text(text)
    train = ("train", "--config", f"{TINY}:vae", "--workdir", tmp_path / "run", f"--config.data.path={folder}")
    for name, arguments in (("inspect", ("data", "inspect", folder)), ("train", train)):
        result = trace(tmp_path / name, *arguments)
        assert result[0] == 2 and "video" in result[1], result[1]
        check(tmp_path, result, tmp_path)
        assert "/etc/hostname" not in result[2]
