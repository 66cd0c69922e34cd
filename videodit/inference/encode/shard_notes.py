"""Notes on the shards of a partial data set, from which its encoding resumes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from videodit_data.storage import manifest

from videodit.config.json_file import read_json
from videodit.inference.encode.work_sharing import share_work
from videodit.parallel.distributed import on_main_process
from videodit.provenance import JSON

T = TypeVar("T")


class ShardNotes:
    """Descriptions of the shards of a partial data set, in one file per shard.

    Args:
        partial: the directory of the partial data set.
        info: what its manifest will record; notes for another `info` are separate.
    """

    def __init__(self, partial: Path, info: Mapping[str, JSON]):
        self.partial = partial
        self._folder = partial / f"notes-{hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()[:16]}"
        on_main_process(lambda: self._folder.mkdir(exist_ok=True))

    def write(
        self, shards: Mapping[str, Callable[[Path], None]], describe: Callable[[Path], T], description: type[T]
    ) -> list[T]:
        """Write the missing shards, each in one process; returns the descriptions of all.

        Args:
            shards: functions that write a shard, by name.
            describe: returns the description of a shard, a dataclass of the type `description`.

        Raises:
            ValueError: when a note is damaged, naming its file.
        """

        def exists(name: str) -> bool:
            return self._note(name).exists() and (self.partial / name).exists()

        def make(name: str) -> None:
            path = self.partial / name
            if not path.exists():
                shards[name](path)
            manifest.write_whole(self._note(name), json.dumps(asdict(describe(path))))

        share_work(list(shards), exists, make)
        return [read_json(self._note(name), description) for name in shards]

    def _note(self, name: str) -> Path:
        return self._folder / f"{name}.json"
