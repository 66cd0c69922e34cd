"""Clips per CPU-second: the whole loader against bare decoding and other loaders, on the same files.

    .venv/bin/python experiments/bench/loader.py [ROUNDS]

Encodes H.264 clips of 96 frames (keyframes every 32) of 256, 480 and 720 lines from `../shared/data/videos`, then reads
windows of 17 frames at random starts: with bare PyAV (decoded and converted to RGB, one thread), with `videodit_data`'s
loader (records, decoding, resizing, tokens, batches of 8; full size, or half the height and width), with webdataset and
PyAV (bytes, batches of 8), and with torchcodec (no batches), where those are installed. They take turns of a second and
a half, ROUNDS (9) times, since the machine's speed drifts; a turn of a loader that reads ahead ends once it has read as
far ahead as before. The table has medians: clips per CPU-second of the process, their share of bare PyAV's in the same
round, and clips per second. Then, the time that a step waits for its data: the step sleeps for as long as the loader
needs for a batch, and so needs no CPU. Last, latents: megabytes per second out of the page cache.
"""

import io
import itertools
import random
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import jax
import numpy as np
from videodit_data import video
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import OneSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import manifest, records
from videodit_data.tokenizer import Tokenizer, train

from videodit.train.device_prefetcher import DevicePrefetcher

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "videos"
SIZES = {"256p": (256, 448), "480p": (480, 832), "720p": (720, 1280)}
FRAMES, WINDOW, BATCH, COPIES, FPS, TURN = 96, 17, 8, 8, 24, 1.5
CAPTION = "a cartoon rabbit looks up from a burrow in a green meadow"


def main() -> None:
    """Print the tables."""
    rounds = int(sys.argv[1]) if sys.argv[1:] else 9
    print("| clips | reader | clips per CPU-second | of bare PyAV's | clips per second |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (height, width) in SIZES.items():
            encoded = [_encode_clip(source, height, width) for source in sorted(SHARED.glob("*.mp4"))]
            table = _measure_readers(_build_readers(encoded, Path(folder) / name, height, width), rounds)
            for reader, (cpu, share, wall) in table.items():
                print(f"| {name} | {reader} | {cpu:.1f} | {share:.0%} | {wall:.1f} |", flush=True)
        for name in SIZES:
            batch, waits = _measure_waits(Path(folder) / name, *(size // 2 for size in SIZES[name]))
            share = f"{statistics.median(waits):.1%} of its time for data ({min(waits):.1%} to {max(waits):.1%})"
            print(f"\n{name}, half the height and width: a step of {batch * 1e3:.0f} ms waits {share}", flush=True)
        packed, bare = _measure_latents(Path(folder) / "latents")
        print(f"\nlatents: {packed:.0f} MB/s in packed sequences, {bare:.0f} MB/s as ArrayRecord alone reads them")


def _encode_clip(source: Path, height: int, width: int) -> bytes:
    """Encode a clip of `FRAMES` frames of the source, which is repeated from the start where it is too short."""
    available = video.probe(source).frames
    frames = video.decode(source, 0, min(available, FRAMES), size=(height, width))
    frames = np.concatenate([frames] * -(-FRAMES // len(frames)))[:FRAMES]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "23", "g": "32"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _build_readers(
    encoded: list[bytes], folder: Path, height: int, width: int
) -> dict[str, Callable[[], Iterator[int]]]:
    """Return functions, by the reader's name, that open an endless iterator over numbers of clips read."""

    def record(number: int) -> records.Record:
        data = encoded[number % len(encoded)]
        size = {"fps": float(FPS), "height": height, "width": width, "frames": FRAMES}
        return records.from_video(f"clip-{number}", data, [CAPTION], **size, source="bench", licence="unknown")

    count = COPIES * len(encoded)
    manifest.build(folder, lambda part: map(record, part), count, info={})
    readers = {"bare PyAV": lambda: _bare(encoded)}
    for threads, scale in ((1, 1), (2, 1), (1, 2), (2, 2)):
        config = _config(folder, height // scale, width // scale, threads, prefetch=1)
        name = f"videodit, {threads} thread{'s' * (threads > 1)}" + ", half the height and width" * (scale == 2)
        readers[name] = lambda config=config: _ours(config)
    readers["webdataset + PyAV"] = lambda: _webdataset(encoded, folder.with_suffix(".tar"))
    readers["torchcodec"] = lambda: _torchcodec(encoded)
    return readers


def _config(folder: Path, height: int, width: int, threads: int, **more: int) -> ReaderConfig:
    shape = OneSize(WINDOW, height, width, float(FPS))
    return ReaderConfig((WeightedDataset(str(folder)),), shape, batch_size=BATCH, num_threads=threads, **more)


def _texts() -> TokenizedText:
    return TokenizedText(Tokenizer(train([CAPTION], 64)))


def _ours(config: ReaderConfig) -> Iterator[int]:
    loader = BatchIterator(config, _texts())
    try:
        for _ in range(config.prefetch + 2):  # until memory is used again
            next(loader)
        for batch in loader:
            yield len(batch.clip_ids)
    finally:
        loader.close()


def _window(data: bytes, start: int) -> np.ndarray:
    """Decode a window that starts at frame `start` to RGB, from the keyframe before it."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        tick = int(start / FPS / stream.time_base)
        container.seek(tick, stream=stream)
        frames = (frame for frame in container.decode(stream) if frame.pts >= tick)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in itertools.islice(frames, WINDOW)])


def _bare(encoded: list[bytes]) -> Iterator[int]:
    rng = random.Random(0)
    while True:
        _window(rng.choice(encoded), rng.randrange(FRAMES - WINDOW))
        yield 1


def _webdataset(encoded: list[bytes], tar: Path) -> Iterator[int]:
    import webdataset

    with tarfile.open(tar, "w") as file:
        for number in range(COPIES * len(encoded)):
            data = encoded[number % len(encoded)]
            member = tarfile.TarInfo(f"{number:04d}.mp4")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    rng = random.Random(0)
    data = webdataset.WebDataset(str(tar), shardshuffle=False).repeat().to_tuple("mp4")
    clips = (_window(sample[0], rng.randrange(FRAMES - WINDOW)) for sample in data)
    while True:
        yield len(np.stack(list(itertools.islice(clips, BATCH))))


def _torchcodec(encoded: list[bytes]) -> Iterator[int]:
    from torchcodec.decoders import VideoDecoder

    rng = random.Random(0)
    while True:
        start = rng.randrange(FRAMES - WINDOW)
        decoder = VideoDecoder(rng.choice(encoded), num_ffmpeg_threads=1, seek_mode="approximate")
        decoder.get_frames_in_range(start, start + WINDOW)
        yield 1


def _measure_readers(
    readers: dict[str, Callable[[], Iterator[int]]], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Return each reader's clips per CPU-second, their share of the first reader's, and clips per second.

    All are medians over the rounds; a share is of the rate in the same round.
    """
    running, rates = {}, {}
    for name, reader in readers.items():
        clips = reader()
        try:
            _run_turn(clips)  # opens the reader and lets it read ahead
        except ImportError as error:
            print(f"<!-- {name}: {error} -->")
            continue
        running[name], rates[name] = clips, []
    for _ in range(rounds):
        turns = {name: _run_turn(clips) for name, clips in running.items()}
        bare, _ = next(iter(turns.values()))
        for name, (cpu, wall) in turns.items():
            rates[name].append((cpu, cpu / bare, wall))
    for clips in running.values():
        clips.close()
    return {name: tuple(map(statistics.median, zip(*rounds, strict=True))) for name, rounds in rates.items()}


def _run_turn(clips: Iterator[int]) -> tuple[float, float]:
    """Return clips per CPU-second and per second of a turn, which ends when as many clips are read ahead as before."""
    done, cpu, start = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() < start + TURN:
        done += next(clips)
    end, used, quiet = time.perf_counter(), time.process_time(), 0
    while quiet < 5:
        time.sleep(0.01)
        quiet, before, used = quiet + 1, used, time.process_time()
        if used - before > 0.002:
            end, quiet = time.perf_counter(), 0
    return done / (used - cpu), done / (end - start)


def _measure_waits(
    folder: Path, height: int, width: int, rounds: int = 5, steps: int = 20
) -> tuple[float, list[float]]:
    """Return the seconds of a step, and for each round the share of time in which the device waits for data.

    As in the trainer's loop, the next batch is copied to the device while a step runs and another is dispatched. A step
    lasts as long as the loader just needed for a batch, since the machine's speed changes from round to round.
    """
    loader = BatchIterator(_config(folder, height, width, 2), _texts())
    prefetcher = DevicePrefetcher(loader, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    device, batch_seconds, waits = ThreadPoolExecutor(1), [], []
    for _ in range(rounds):
        for _ in range(3):
            next(prefetcher)
        start = time.perf_counter()
        for _ in range(steps):
            jax.block_until_ready(next(prefetcher).batch)
        batch_seconds.append((time.perf_counter() - start) / steps)
        prefetcher.prefetch()
        start, running = time.perf_counter(), [device.submit(time.sleep, batch_seconds[-1])]
        for _ in range(steps):
            jax.block_until_ready(next(prefetcher).batch)
            running.append(device.submit(time.sleep, batch_seconds[-1]))
            prefetcher.prefetch()
            running[-2].result()
        running[-1].result()
        waits.append(1 - len(running) * batch_seconds[-1] / (time.perf_counter() - start))
    loader.close()
    return statistics.median(batch_seconds), waits


def _measure_latents(folder: Path, seconds: float = 1.0, rounds: int = 5) -> tuple[float, float]:
    """Return MB/s of float16 means and log-variances in the page cache, on two threads: packed, and as bare records."""
    rng = np.random.default_rng(0)
    mean, logvar = (rng.standard_normal((21, 60, 104, 16), np.float32) for _ in range(2))

    def record(number: int) -> records.Record:
        size = {"fps": 16.0, "frames": 81, "height": 480, "width": 832}
        clip = records.from_video(f"clip-{number}", b"", [CAPTION], **size, source="bench", licence="unknown")
        return records.with_latent(clip, mean, logvar, **size)

    manifest.build(folder, lambda part: map(record, part), 64, info={})
    config = ReaderConfig((WeightedDataset(str(folder)),), Packing(32760), batch_size=4, num_threads=2)
    loader, pool, rates = BatchIterator(config, _texts()), ThreadPoolExecutor(2), []
    source = loader.source.sets[0].records
    reads = (
        lambda: (next(loader).latent_mean.nbytes * 2,),
        lambda: pool.map(lambda number: len(source.packed(number)), range(16)),
    )
    for _, read in itertools.product(range(rounds), reads):
        sum(read())
        done, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            done += sum(read())
        rates.append(done / (time.perf_counter() - start) / 1e6)
    loader.close()
    return statistics.median(rates[::2]), statistics.median(rates[1::2])


if __name__ == "__main__":
    main()
