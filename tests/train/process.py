"""One of several processes of a run."""

import json
import time
from pathlib import Path

import jax
from rich.console import Console
from videodit_data.reading.batch_iterator import BatchIterator as DataLoader
from videodit_data.reading.buckets import OneSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.tokenizer import NoTokenizer

from tests.train.toy import FRAMES, RESOLUTION, ToyTask, digest, toy_run
from videodit.parallel.distributed import join
from videodit.parallel.mesh import MeshConfig
from videodit.train.loop import local_batch_indices, train


def main(
    data: str,
    output: str,
    workdir: str,
    steps: int,
    mesh: dict[str, int],
    address: str,
    processes: int,
    index: int,
    delay: float = 0,
) -> None:
    """Train the toy; write the clips of every batch taken, and at the end the state's hash, to the file `output`.

    Other libraries write to standard output, so that a file is needed.
    """

    def write(name: str, value: object) -> None:
        with Path(output).open("a") as file:
            print(name, json.dumps(value), file=file)

    if processes > 1:
        join(address, processes, index, seconds=120)
    run = toy_run(steps=steps, mesh=MeshConfig(**mesh))
    shape = OneSize(FRAMES, RESOLUTION, RESOLUTION)

    class BatchIterator(DataLoader):
        def __next__(self):
            time.sleep(delay)
            batch = super().__next__()
            write("clips", [self.clips_served[0] // run.data.batch_size - 1, list(batch.clip_ids)])
            return batch

    config = ReaderConfig((WeightedDataset(data),), shape, batch_size=run.data.batch_size, caption_dropout=0.0)
    loader = BatchIterator(config, TokenizedText(NoTokenizer()), local_batch_indices=local_batch_indices(run))
    outcome = train(run, ToyTask(), loader, None, Path(workdir), console=Console(stderr=True))
    whole = jax.sharding.NamedSharding(outcome.state.step.sharding.mesh, jax.sharding.PartitionSpec())
    write("ended", [outcome.step, digest(jax.jit(lambda x: x, out_shardings=whole)(outcome.state))])
    loader.close()
