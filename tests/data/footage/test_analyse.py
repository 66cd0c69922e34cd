"""A file's analysis: cuts, measures and fingerprints survive encoding; damage is refused; memory does not grow."""

import dataclasses
import json
import random
import re
import tracemalloc
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.filter import Graph
from videodit_data import video
from videodit_data.footage.analyse import AnalysisConfig, MeasureConfig, analyze
from videodit_data.footage.analysis_result import MEASURES, Analysis, Shot
from videodit_data.footage.clips import ClipConfig
from videodit_data.footage.fingerprint import distance
from videodit_data.footage.loudness import Loudness
from videodit_data.footage.shots import ShotConfig
from videodit_data.video import VideoError
from videodit_data.video.isolate import Isolated, Limits

CONFIG = AnalysisConfig(clips=ClipConfig(min_seconds=1.0))
KINDS = {"mp4": ("libx264", "yuv420p"), "webm": ("libvpx", "yuv420p"), "avi": ("mpeg4", "yuv420p")}


@pytest.fixture(scope="module")
def joined(real_shots):
    return np.concatenate([real_shots["rabbit"][:50], real_shots["hiker"][:12], real_shots["street"][:38]])


def analyze_encoded(frames, path, fps=25, crf=20):
    video.encode(path, frames, fps, crf=crf)
    return analyze(path, CONFIG)


def sounding(path, frames, waves, rate=48_000, fps=25):
    """Write a file of frames and a sound, float [samples], in pieces of a tenth of a second."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"threads": "1"})
        picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p"
        sound = container.add_stream("flac", rate=rate, layout="mono")
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(picture.encode())
        for start in range(0, len(waves), rate // 10):
            piece = (waves[None, start : start + rate // 10] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def test_shots_clips_and_rests_of_an_encoded_file(joined, tmp_path):
    analysis = analyze_encoded(joined, tmp_path / "joined.mp4")
    assert analysis.shots == (Shot(0, 50), Shot(50, 62), Shot(62, 100))
    assert [(clip.start, clip.frames) for clip in analysis.clips] == [(0, 50), (62, 38)]
    assert analysis.short == (Shot(50, 62),) and analysis.clips[1].start_seconds == pytest.approx(62 / 25)
    assert analysis.info == video.verify(tmp_path / "joined.mp4") and analysis.notes == ()
    for clip in analysis.clips:
        assert list(clip.measures) == list(MEASURES) and len(clip.fingerprint) == 8
        assert clip.measures["loudness"] is None
    assert Analysis.from_json(json.loads(json.dumps(analysis.to_json()))) == analysis
    assert analyze_encoded(joined, tmp_path / "joined.mp4") == analysis


def test_size_rate_and_encoding_hardly_change_measures(still, pan, tmp_path):
    frames = pan(still, 0.4, 30.0, 1.1, (360, 640))
    base = analyze_encoded(frames, tmp_path / "base.mp4", 30).clips
    others = {
        "crf 32": analyze_encoded(frames, tmp_path / "crf.mp4", 30, crf=32),
        "larger": analyze_encoded(pan(still, 0.4, 30.0, 1.1, (480, 854)), tmp_path / "large.mp4", 30),
        "slower": analyze_encoded(frames[::2], tmp_path / "slow.mp4", 15),
    }
    assert base[0].measures["motion"] == pytest.approx(0.4, rel=0.1)
    for name, analysis in others.items():
        ((clip,), (one,)) = analysis.clips, base
        for measure, share in (("motion", 0.05), ("luminance", 0.02), ("contrast", 0.03), ("sharpness", 0.35)):
            assert clip.measures[measure] == pytest.approx(one.measures[measure], rel=share), (name, measure)
        for measure in ("bars", "text", "static", "slideshow"):
            assert clip.measures[measure] == pytest.approx(one.measures[measure], abs=0.01), (name, measure)
        assert distance(clip.fingerprint, one.fingerprint) < 4, name


@pytest.mark.parametrize("crf", [18, 30])
def test_bars_stills_and_slides_are_measured_in_encoded_files(crf, still, real_shots, tmp_path):
    slides = np.repeat(np.stack([still[::4, ::4], np.roll(still[::4, ::4], 40, 1)]), 25, axis=0)
    slides[:, :18] = 0
    analysis = analyze(
        path(slides, tmp_path, crf), dataclasses.replace(CONFIG, shots=ShotConfig("none", fades=False))
    ).clips[0]
    assert analysis.measures["slideshow"] > 0.9 and analysis.measures["static"] > 0.9
    assert analysis.measures["bars"] == pytest.approx(18 / 180, abs=1.5 / 180)
    assert analysis.measures["motion"] < 0.2
    moving = analyze(path(real_shots["rabbit"][:50], tmp_path, crf), CONFIG).clips[0]
    assert moving.measures["static"] == 0 and moving.measures["slideshow"] == 0


def path(frames, folder, crf):
    video.encode(folder / "coded.mp4", frames, 25, crf=crf)
    return folder / "coded.mp4"


def ffmpegs_own(path):
    """Return the integrated loudness of a whole file as the filter itself measures it."""
    graph, loudness = Graph(), -70.0
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        source = graph.add_abuffer(template=sound)
        graph.link_nodes(source, graph.add("ebur128", "metadata=1"), graph.add("abuffersink")).configure()
        for frame in [*container.decode(sound), None]:
            graph.push(frame)
            while True:
                try:
                    loudness = float(graph.pull().metadata.get("lavfi.r128.I", loudness))
                except (av.BlockingIOError, av.EOFError):
                    break
    return loudness


def test_loudness_is_ffmpegs_and_that_of_the_clip(joined, tmp_path):
    time = np.arange(4 * 48_000) / 48_000
    waves = np.sin(2 * np.pi * 997 * time) * np.where(time < 2.0, 0.5, 0.05)
    file = sounding(tmp_path / "sound.mkv", joined, waves)
    first, second = analyze(file, CONFIG).clips
    # A sine of 997 Hz and full scale in one channel has -3.01 LUFS (EBU Tech 3341).
    assert first.measures["loudness"] == pytest.approx(-3.01 - 6.02, abs=0.15)
    assert second.measures["loudness"] == pytest.approx(-3.01 - 26.02, abs=0.15)
    heard = Loudness()
    video.verify(file, on_packet=heard.add_packet)
    assert heard.integrated(0.0, 4.0) == pytest.approx(ffmpegs_own(file), abs=0.01)
    quiet = analyze(sounding(tmp_path / "quiet.mkv", joined, waves * 0), CONFIG)
    assert quiet.clips[0].measures["loudness"] is None and quiet.notes == ()


def test_loudness_of_real_sound_is_ffmpegs(real_clips):
    heard = Loudness()
    video.verify(real_clips / "bigbuckbunny.mp4", on_packet=heard.add_packet)
    assert heard.integrated(0.0, 6.0) == pytest.approx(ffmpegs_own(real_clips / "bigbuckbunny.mp4"), abs=0.01)


def test_sound_that_cannot_be_decoded_is_reported_and_costs_only_the_loudness(joined, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * 48_000)
    file = sounding(tmp_path / "sound.mkv", joined, noise)
    with av.open(str(file)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = file.read_bytes()
    for packet in packets[len(packets) // 2 :]:
        data = data.replace(packet, bytes(len(packet)))
    file.write_bytes(data)
    analysis = analyze(file, CONFIG)
    has_note = any("the sound cannot be decoded" in note for note in analysis.notes)
    assert has_note and len(analysis.shots) == 3
    assert analysis.clips[0].measures["loudness"] > -20 and analysis.clips[1].measures["loudness"] is None


def test_what_verify_refuses_is_refused(joined, tmp_path):
    file = tmp_path / "film.mp4"
    video.encode(file, joined, 25)
    with pytest.raises(VideoError, match=r"a film: frames of 228 x 128 are more than 1000 pixels"):
        analyze(file, CONFIG, name="a film", most_pixels=1000)
    file.write_bytes(file.read_bytes()[:-20_000])
    with pytest.raises(VideoError, match=r"film.mp4: "):
        analyze(file, CONFIG)
    file.write_text("not a film")
    with pytest.raises(VideoError, match=r"a film: not readable"):
        analyze(file, CONFIG, name="a film")


@pytest.mark.parametrize("size", [(2, 2), (2, 600), (600, 2)])
def test_odd_shapes_and_single_frames_are_analysed(size, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (30, *size, 3), np.uint8)
    analysis = analyze_encoded(frames, tmp_path / "odd.mp4")
    assert analysis.info.frames == 30 and analysis.shots[-1].stop == 30
    single = analyze_encoded(frames[:1], tmp_path / "one.mp4")
    assert single.clips == () and single.short == (Shot(0, 1),)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_by_name_or_analysed(kind, joined, write_file, tmp_path):
    data = write_file(tmp_path / f"whole.{kind}", joined[:30, ::2, ::2], *KINDS[kind], 10).read_bytes()
    rng, refused = random.Random(kind), 0
    limits = Limits(seconds=60, mebibytes=3072)
    arguments = {"what": "analysis", "config": CONFIG.to_json(), "most_pixels": 2**22}
    with Isolated("videodit_data.footage.worker:run", limits) as analyzer:
        for case in range(9):
            bad, at = bytearray(data), rng.randrange(len(data))
            if case % 3 == 0:
                bad = bad[:at]
            elif case % 3 == 1:
                bad[at : at + 64] = rng.randbytes(64)
            else:
                for _ in range(8):
                    bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            file = tmp_path / f"{case}.{kind}"
            file.write_bytes(bad)
            try:
                analysis = Analysis.from_json(analyzer(file, name=file.name, **arguments))
            except VideoError as error:
                assert str(error).startswith(file.name) and "\n" not in str(error)
                assert not re.search(r"\w+Error, |\berror, ", str(error))  # of our own making
                refused += 1
                continue
            assert analysis.shots[-1].stop == analysis.info.frames
        assert 0 < refused <= 9


def test_what_is_kept_of_a_frame_does_not_grow_with_its_size(still, tmp_path):
    small, large = cv2.resize(still, (320, 180)), still
    video.encode(tmp_path / "small.mp4", np.stack([small] * 8), 12)
    video.encode(tmp_path / "large.mp4", np.stack([large] * 8), 12)
    video.encode(tmp_path / "long.mp4", np.stack([small] * 48), 12)
    analyze(tmp_path / "small.mp4", CONFIG)
    peaks = []
    for name in ("small", "large", "long"):
        tracemalloc.start()
        analyze(tmp_path / f"{name}.mp4", CONFIG)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20 * 360 * 640 and peaks[2] < peaks[0] + 20 * 360 * 640


def test_a_configuration_goes_through_json():
    config = AnalysisConfig(ShotConfig("content", 30), ClipConfig(1, 4), MeasureConfig(looks=2))
    assert AnalysisConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ValueError, match="looks, step and text_seconds above 0"):
        MeasureConfig(looks=0)


@pytest.mark.parametrize("size", [(2, 40), (16, 400), (16, 2048), (24, 96), (400, 16), (2, 2)])
def test_frames_of_any_shape_are_analyzed(size, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (12, *size, 3), np.uint8)
    with Isolated("videodit_data.footage.worker:run", Limits(seconds=60)) as work:  # a crash would be its own
        video.encode(tmp_path / "x.mp4", frames, 8)
        arguments = {"what": "analysis", "config": CONFIG.to_json(), "most_pixels": 2**26}
        (clip,) = Analysis.from_json(work(tmp_path / "x.mp4", name="x.mp4", **arguments)).clips
    assert clip.frames == 12 and clip.measures["motion"] > 0
