import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from videodit_data import inspect
from videodit_data.storage import manifest, records


def test_the_facts_of_a_data_set(tmp_path: Path, data_set: Callable[..., Path]):
    facts = inspect.summary(data_set(tmp_path / "set", [5, 9, 9], shards=2), look_at=2)
    assert (facts["clips"], facts["frames"], facts["shortest"], facts["longest"]) == (3, 23, 5, 9)
    assert (facts["fps"], facts["sizes"], facts["captions"]) == ({"8": 3}, {"48 x 32": 3}, 4)
    assert facts["origins"] == [("tests", "CC0-1.0", 3)] and facts["left_out"] == []


def test_the_table_names_what_was_left_out(tmp_path: Path, data_set: Callable[..., Path]):
    source = manifest.records(data_set(tmp_path / "from", [5]))
    left_out = [manifest.LeftOut(f"[{n}].mp4", "[bold]truncated") for n in range(119)]
    left_out.insert(0, manifest.LeftOut("a.mp4#0-9", "motion: too little", 30))
    manifest.build(tmp_path / "set", lambda part: (source[n] for n in part), 1, info={}, left_out=left_out)
    console = Console(record=True, width=100, file=io.StringIO())
    inspect.print_summary(tmp_path / "set", console)
    text = console.export_text()
    assert "1 (video) in 1 shards" in text and "Left out: 149" in text
    assert "a.mp4#0-9 and 29 more" in text and "[98].mp4" in text
    assert "[bold]truncated" in text and "and 20 more" in text


@pytest.mark.parametrize(("clips", "rows", "columns"), [(1, 4, 2), (3, 2, 2), (9, 2, 3)])
def test_a_contact_sheet_shows_first_middle_and_last_frames(
    tmp_path: Path, data_set: Callable[..., Path], clips: int, rows: int, columns: int
):
    directory = data_set(tmp_path / "set", [21] * clips)
    inspect.contact_sheet(directory, tmp_path / "sheet.png", rows=rows, columns=columns)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    assert sheet.ndim == 3 and sheet.shape[2] == 3
    strip = sheet[8 + 80]  # through the middle of the first row's frames
    for column, number in enumerate((0, 10, 20)):
        assert abs(strip[8 + 241 * column + 120, 0] - (8 + 10 * number)) <= 2
    cell_count = min(clips, rows * columns)
    assert sheet.shape[0] > 160 * -(-cell_count // columns) and sheet.shape[1] > 720 * min(columns, cell_count)


def test_latents_have_no_contact_sheet(tmp_path: Path, data_set: Callable[..., Path]):
    source, latent = manifest.records(data_set(tmp_path / "set", [5])), np.zeros((2, 4, 6, 8), np.float32)
    latent_record = records.with_latent(source[0], latent, latent, fps=8.0, frames=5, height=32, width=48)
    manifest.build(tmp_path / "latents", lambda part: [latent_record], 1, info={})
    with pytest.raises(ValueError, match="holds latents"):
        inspect.contact_sheet(tmp_path / "latents", tmp_path / "sheet.png")
    assert inspect.summary(tmp_path / "latents")["content"] == "latent"
