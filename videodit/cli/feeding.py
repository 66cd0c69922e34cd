"""The clips of a run, opened as its data configuration says: in one size, or packed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videodit_data.loader import Loader, LoaderConfig
from videodit_data.mixed import MixedConfig, MixedLoader
from videodit_data.packing import Packing
from videodit_data.sequence import Part
from videodit_data.spec import Batch, PackedBatch

from videodit.cli.models import read
from videodit.train.config import Run, VAERun

Config = LoaderConfig | MixedConfig


def training(run: Run) -> Config:
    """How the training clips of a run are read.

    Raises:
        ValueError: when its data are packed and its autoencoder is missing, or several data sets are not packed.
    """
    data = run.data
    common = {
        "text_length": data.text_length,
        "caption_dropout": data.caption_dropout,
        "seed": run.seed,
        "num_threads": data.num_threads,
    }
    if not data.packed:
        size = {name: getattr(data, name) for name in ("path", "frames", "height", "width", "fps", "batch_size")}
        return LoaderConfig(**size, **common, prefetch=data.prefetch)
    vae = read(Path(run.vae), VAERun, "an autoencoder is wanted, of kind 'vae'").model
    sizes = {"patch": run.model.patch, "stride": (vae.time_stride, vae.space_stride)}
    packing = Packing(data.packing.length, data.packing.clips, data.packing.look_ahead, **sizes)
    ahead = data.prefetch * data.batch_size
    return MixedConfig(parts(data.path), packing=packing, rows=data.batch_size, **common, prefetch=ahead)


def held_out(run: Run) -> Config | None:
    """How those are read that the run is evaluated on, each once and in order."""
    if not run.data.eval_path:
        return None
    config = training(run).evaluation()
    if isinstance(config, LoaderConfig):
        return replace(config, path=run.data.eval_path)
    return replace(config, parts=parts(run.data.eval_path))


def data_sets(run: Run) -> list[str]:
    """The directories that a run reads."""
    named = [path for path in (run.data.path, run.data.eval_path) if path]
    return [part.path for path in named for part in parts(path)] if run.data.packed else named


def parts(path: str) -> tuple[Part, ...]:
    """The data sets that `DIR:3,DIR:1` or `DIR` names, by weight."""
    named = (re.fullmatch(r"(.+?)(?::([0-9.]+))?", part.strip()) for part in path.split(","))
    try:
        return tuple(Part(match[1], float(match[2] or 1)) for match in named)
    except (TypeError, ValueError):
        raise ValueError(f"data sets are named like DIR:3,DIR:1, not '{path}'") from None


def opened(config: Config, tokenizer: Any, rows: Sequence[int]) -> Loader | MixedLoader:
    """The loader of a configuration; `rows` are those of a batch that this process serves."""
    if isinstance(config, LoaderConfig):
        return Loader(config, tokenizer, rows=rows)
    return MixedLoader(config, tokenizer, rows=lambda size: rows)


@dataclass(frozen=True)
class Passes:
    """Held-out batches that can be gone through again and again: each time about the first `clips` of them.

    rows: those of a batch that this process serves; None for all.
    """

    config: Config
    tokenizer: Any
    clips: int
    rows: Sequence[int] | None = None

    def __iter__(self) -> Iterator[Batch | PackedBatch]:
        size = self.config.batch_size if isinstance(self.config, LoaderConfig) else self.config.rows
        loader = opened(self.config, self.tokenizer, range(size) if self.rows is None else self.rows)
        begun = 0  # of all processes together, which have to end at one batch
        try:
            for batch in loader:
                if begun >= self.clips:
                    break
                begun = sum(loader.served) if isinstance(loader, MixedLoader) else begun + size
                yield batch
        finally:
            loader.close()
