"""Statistics of a mixture before training agree with the batches of training."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from rich.console import Console
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.bucket_stats import compute_bucket_stats, latent_stride, print_bucket_stats
from videodit_data.reading.buckets import Bucket, Buckets
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import manifest, records
from videodit_data.tokenizer import NoTokenizer

BUCKETS = Buckets(resolutions=(32, 48), aspects=(1.0, 1.5), frames=(5, 9, 17), fps=8.0, tokens=200)


@pytest.fixture(scope="module")
def paths(data_set, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    one = data_set(root / "one", [9, 17, 3, 21, 12, 9, 9, 2], shards=2)
    return tuple(WeightedDataset(str(path)) for path in (one, data_set(root / "two", [9] * 5, 8.0, 48, 48)))


def test_it_counts_shapes_drops_and_tokens(paths):
    stats = compute_bucket_stats(ReaderConfig(paths, BUCKETS))
    assert stats.dropped == {paths[0].path: {"too short": 2}, paths[1].path: {}}
    assert {shape.bucket: shape.clips for shape in stats.shapes} == {
        Bucket(9, 48, 48): 5,
        Bucket(9, 32, 48): 4,
        Bucket(17, 32, 48): 2,
    }
    assert stats.clips == 11 and stats.num_compiled == 3
    for shape in stats.shapes:
        bucket = shape.bucket
        assert shape.tokens == (1 + (bucket.frames - 1) // 4) * bucket.height * bucket.width // 256
        assert shape.batch_size == 200 // shape.tokens and shape.crop_share == 1.0


def test_it_is_what_the_loader_serves(paths):
    config = ReaderConfig(paths, BUCKETS, seed=4)
    stats, loader = compute_bucket_stats(config), BatchIterator(config, TokenizedText(NoTokenizer()))
    tokens = {str(shape.bucket): shape.tokens for shape in stats.shapes}
    used = batches = 0
    for batch in itertools.takewhile(lambda _: sum(loader.clips_served) <= 3 * stats.clips, loader):
        used += len(batch.clip_ids) * tokens[" x ".join(map(str, batch.arrays.video.shape[1:4]))]
        batches += 1
    assert stats.token_utilization == pytest.approx(used / batches / 200, abs=0.15)


def test_packing_compiles_one_step_and_fills_it(paths):
    packing = Packing(100, clips=8, look_ahead=64, buckets=BUCKETS)
    stats = compute_bucket_stats(ReaderConfig(paths, packing, batch_size=3))
    assert stats.num_compiled == 1 and stats.clips == 11 and all(shape.batch_size == 0 for shape in stats.shapes)
    assert stats.token_utilization > 0.9
    with pytest.raises(ValueError, match=r"no clip fits the packed sequences: .* longer than a packed"):
        compute_bucket_stats(ReaderConfig(paths, dataclasses.replace(packing, length=10)))


def test_it_prints_every_shape_and_every_drop(paths):
    console = Console(record=True, width=100, file=io.StringIO())
    print_bucket_stats(ReaderConfig(paths, BUCKETS), console)
    text = console.export_text()
    assert "17 x 32 x 48" in text and "2 clips are too short and not served" in text.replace("\n", " ")
    assert "3 shapes to compile a step for" in text.replace("\n", "")


def coded(path, frames, stride, side=48):
    """Write latents of clips of these lengths, of a VAE of that stride."""

    def record(number):
        mean = np.zeros((1 + (frames[number] - 1) // stride[0], side // stride[1], side // stride[1], 2), np.float32)
        size = {"fps": 8.0, "frames": frames[number], "height": side, "width": side}
        original = records.from_video(f"clip-{number}", b"", ["a clip"], **size, source="tests", licence="CC0-1.0")
        return records.with_latent(original, mean, mean, **size)

    manifest.build(path, lambda part: map(record, part), len(frames), shards=1, info={})
    return str(path)


@pytest.mark.parametrize("stride", [(4, 8), (2, 4), (8, 16), (3, 6)])
def test_latents_tell_the_stride_of_their_vae(paths, tmp_path, stride):
    clips = coded(tmp_path / "clips", [1, 1 + 4 * stride[0], 1 + stride[0]], stride)
    images = coded(tmp_path / "images", [1, 1], stride)
    assert latent_stride([clips]) == latent_stride([images, clips]) == stride
    assert latent_stride([images]) == (None, stride[1])
    assert latent_stride([part.path for part in paths]) is None
    other = coded(tmp_path / "other", [1 + 2 * stride[0]], (stride[0], 2))
    with pytest.raises(ValueError, match="different strides"):
        latent_stride([clips, other])
