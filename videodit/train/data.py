"""The clips of a run, opened as its data configuration says: in one size, in buckets, or packed."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videodit_data.formats import open_dataset
from videodit_data.reading.batch import HostBatch
from videodit_data.reading.batch_iterator import BatchIterator, LocalBatchIndices
from videodit_data.reading.buckets import Buckets, OneSize, TokenSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import CachedText, TokenizedText
from videodit_data.tokenizer import NoTokenizer, Tokenizer

from videodit.checkpoint.identity import text_encoder_identity
from videodit.checkpoint.restore import NEEDS_VAE, load_text_encoder_on_host, read_config_of
from videodit.config.run import Run, VAERun
from videodit.models.vae import VAEConfig
from videodit.train.conditions import register_conditions

ENCODED = {"vae": ("latents", "autoencoder", "clips"), "text": ("embeddings", "text encoder", "captions")}
"""By what a manifest calls it: what was encoded, by what, from what."""


def training_config(run: Run, multiple: int = 1) -> ReaderConfig:
    """Return how the training clips of a run are read.

    Args:
        multiple: what the number of clips of a bucket's batch has to be a multiple of (`loop.batch_multiple`).

    Raises:
        ValueError: when shapes need the autoencoder, and it is missing.
    """
    data = run.data
    return ReaderConfig(
        parse_datasets(data.path),
        _shapes(run),
        batch_size=data.batch_size,
        multiple=multiple,
        caption_dropout=data.caption_dropout,
        seed=run.seed,
        num_threads=data.num_threads,
        prefetch=data.prefetch,
        conditions=register_conditions(data.conditions),
    )


def heldout_config(run: Run, multiple: int = 1) -> ReaderConfig | None:
    """Return how the clips are read that the run is evaluated on, each once and in order."""
    if not run.data.eval_path:
        return None
    return replace(training_config(run, multiple).as_evaluation(), datasets=parse_datasets(run.data.eval_path))


def _shapes(run: Run) -> OneSize | Buckets | Packing:
    data = run.data
    if not (data.packed or data.bucketed):
        return OneSize(data.frames, data.height, data.width, data.fps)
    vae = _vae_config(run)
    patch = (1, 1, 1) if isinstance(run, VAERun) else run.model.patch
    stride = vae.time_stride, vae.space_stride
    if data.packed:
        return Packing(data.packing.length, data.packing.clips, data.packing.look_ahead, patch, stride)
    return Buckets(
        resolutions=data.buckets.resolutions,
        aspects=data.buckets.aspects,
        frames=data.buckets.frames,
        max_upscale=data.buckets.max_upscale,
        tokens=data.buckets.tokens,
        fps=data.fps,
        token=TokenSize(stride[0] * patch[0], stride[1] * patch[1]),
    )


def _vae_config(run: Run) -> VAEConfig:
    return run.model if isinstance(run, VAERun) else read_config_of(Path(run.vae), VAERun, NEEDS_VAE).model


def dataset_paths(run: Run) -> list[str]:
    """Return the data sets that a run reads."""
    return [part.path for path in (run.data.path, run.data.eval_path) if path for part in parse_datasets(path)]


def parse_datasets(path: str) -> tuple[WeightedDataset, ...]:
    """Return the data sets that `DIR:3,DIR:1` or `DIR` names, with their weights; ValueError for anything else."""
    matches = (re.fullmatch(r"(.+?)(?::([0-9.]+))?", part.strip()) for part in path.split(","))
    try:
        return tuple(WeightedDataset(match[1], float(match[2] or 1)) for match in matches)
    except (TypeError, ValueError):
        raise ValueError(f"data sets are named like DIR:3,DIR:1, not '{path}'") from None


def open_texts(run: Run, tokenizer: Tokenizer | NoTokenizer) -> TokenizedText | CachedText:
    """Open what is served of a run's captions: token ids, or the embeddings that its data carry.

    Embeddings are served to a run whose text encoder is frozen, if all of its data sets carry them.

    Raises:
        ValueError: when those were made by another text encoder or tokenizer, or for another length.
    """
    encoder, paths = getattr(run, "text_encoder", None), dataset_paths(run)
    carrying = [path for path in paths if encoder and open_dataset(path).manifest.texts]
    if not carrying:
        return TokenizedText(tokenizer, run.data.text_length, clean=encoder is not None)
    if lacking := sorted({*paths} - {*carrying}):
        logging.getLogger(__name__).warning(
            "The text encoder runs in every step, since %s carry no embeddings; %s do.",
            ", ".join(lacking),
            ", ".join(carrying),
        )
        return TokenizedText(tokenizer, run.data.text_length, clean=True)
    model, config, step = load_text_encoder_on_host(Path(encoder), run)
    identity = text_encoder_identity(model, config, step, tokenizer.model, run.data.text_length)  # reads all weights
    for path in carrying:
        check_encoder(path, "text", identity, encoder)
    return CachedText(carrying)


def check_encoder(dataset: str, part: str, identity: Mapping[str, Any], workdir: str) -> None:
    """Check that a part of a data set (a key of `ENCODED`) was encoded by the model that a run names.

    Raises:
        ValueError: when it was not, naming what differs.
    """
    recorded = open_dataset(dataset).manifest.info.get(part) or {}
    if recorded != identity:
        encoded, encoder, source = ENCODED[part]
        differing = ", ".join(sorted(key for key in {*identity, *recorded} if recorded.get(key) != identity.get(key)))
        raise ValueError(
            f"the {encoded} of {dataset} were not made by the {encoder} in {workdir} ({differing} differ): encode the "
            f"{source} again, or name the {encoder} that made them"
        )


@dataclass(frozen=True)
class HeldoutBatches:
    """Held-out batches, an iterable that can be repeated: each time about the first `clips` of them.

    Attributes:
        rows: of a batch's size, the indices of the rows that this process serves.
    """

    config: ReaderConfig
    texts: TokenizedText | CachedText
    clips: int
    rows: LocalBatchIndices = range

    def __iter__(self) -> Iterator[HostBatch]:
        loader = BatchIterator(self.config, self.texts, local_batch_indices=self.rows)
        try:
            for batch in loader:
                yield batch
                if sum(loader.clips_served) >= self.clips:  # of all processes together, which have to end at one batch
                    break
        finally:
            loader.close()
