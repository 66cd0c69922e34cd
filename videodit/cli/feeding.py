"""The clips of a run, opened as its data configuration says: in one size, in buckets, or packed."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videodit_data.formats import open_dataset
from videodit_data.reading.batch import Batch, PackedBatch
from videodit_data.reading.batch_iterator import BatchIndices, BatchIterator
from videodit_data.reading.buckets import Buckets, OneSize, Token
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import CachedText, TokenizedText
from videodit_data.tokenizer import NoTokenizer, Tokenizer

from videodit.cli.identity import check, text_identity
from videodit.cli.models import read, text_on_host
from videodit.models.vae import VAEConfig
from videodit.train.config import Run, VAERun


def training(run: Run, multiple: int = 1) -> ReaderConfig:
    """How the training clips of a run are read.

    Args:
        multiple: what the number of clips of a bucket's batch has to be a multiple of (`train.loop.multiple`).

    Raises:
        ValueError: when shapes need the autoencoder, and it is missing.
    """
    data = run.data
    return ReaderConfig(
        parts(data.path),
        _shapes(run),
        rows=data.batch_size,
        multiple=multiple,
        caption_dropout=data.caption_dropout,
        seed=run.seed,
        num_threads=data.num_threads,
        prefetch=data.prefetch,
    )


def _shapes(run: Run) -> OneSize | Buckets | Packing:
    data = run.data
    if not (data.packed or data.bucketed):
        return OneSize(data.frames, data.height, data.width, data.fps)
    vae = _vae(run)
    patch = (1, 1, 1) if isinstance(run, VAERun) else run.model.patch
    stride = vae.time_stride, vae.space_stride
    if data.packed:
        return Packing(data.packing.length, data.packing.clips, data.packing.look_ahead, patch, stride)
    how = {name: getattr(data.buckets, name) for name in ("sides", "aspects", "frames", "upsample", "tokens")}
    return Buckets(**how, fps=data.fps, token=Token(stride[0] * patch[0], stride[1] * patch[1]))


def _vae(run: Run) -> VAEConfig:
    if isinstance(run, VAERun):
        return run.model
    return read(Path(run.vae), VAERun, "an autoencoder is wanted, of kind 'vae'").model


def held_out(run: Run, multiple: int = 1) -> ReaderConfig | None:
    """How those are read that the run is evaluated on, each once and in order."""
    if not run.data.eval_path:
        return None
    return replace(training(run, multiple).evaluation(), parts=parts(run.data.eval_path))


def data_sets(run: Run) -> list[str]:
    """The directories that a run reads."""
    return [part.path for path in (run.data.path, run.data.eval_path) if path for part in parts(path)]


def parts(path: str) -> tuple[WeightedDataset, ...]:
    """The data sets that `DIR:3,DIR:1` or `DIR` names, by weight."""
    named = (re.fullmatch(r"(.+?)(?::([0-9.]+))?", part.strip()) for part in path.split(","))
    try:
        return tuple(WeightedDataset(match[1], float(match[2] or 1)) for match in named)
    except (TypeError, ValueError):
        raise ValueError(f"data sets are named like DIR:3,DIR:1, not '{path}'") from None


def texts(run: Run, tokenizer: Tokenizer | NoTokenizer) -> TokenizedText | CachedText:
    """What is served of a run's captions: tokens, or the embeddings that its data carry if it trains no encoder along.

    Raises:
        ValueError: when those were made by another text encoder or tokenizer, or for another length.
    """
    encoder, paths = getattr(run, "text_encoder", None), data_sets(run)
    carrying = [path for path in paths if encoder and open_dataset(path).manifest.texts]
    if not carrying:
        return TokenizedText(tokenizer, run.data.text_length, tidy=encoder is not None)
    if lacking := sorted({*paths} - {*carrying}):
        logging.getLogger(__name__).warning(
            "The text encoder runs in every step, since %s carry no embeddings; %s do.",
            ", ".join(lacking),
            ", ".join(carrying),
        )
        return TokenizedText(tokenizer, run.data.text_length, tidy=True)
    made_by = text_identity(*text_on_host(Path(encoder), run), tokenizer, run.data.text_length)  # reads all weights
    for path in carrying:
        check(path, "text", made_by, encoder)
    return CachedText(carrying)


@dataclass(frozen=True)
class Passes:
    """Held-out batches that can be gone through again and again: each time about the first `clips` of them.

    rows: given a batch's size, those of its rows that this process serves.
    """

    config: ReaderConfig
    texts: Any
    clips: int
    rows: BatchIndices = range

    def __iter__(self) -> Iterator[Batch | PackedBatch]:
        loader = BatchIterator(self.config, self.texts, rows=self.rows)
        try:
            for batch in loader:
                yield batch
                if sum(loader.served) >= self.clips:  # of all processes together, which have to end at one batch
                    break
        finally:
            loader.close()
