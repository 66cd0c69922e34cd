"""Notes on the shards of a partial data set, from which its encoding resumes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from videodit_data.storage import manifest

from videodit.inference.encode.work_sharing import share_work
from videodit.parallel.distributed import on_main_process
from videodit.provenance import JSON


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
        self, shards: Mapping[str, Callable[[Path], None]], describe: Callable[[Path], Mapping[str, JSON]]
    ) -> list[Mapping[str, JSON]]:
        """Write the missing shards, each in one process; returns the descriptions of all.

        Args:
            shards: functions that write a shard, by name.
            describe: returns the description of a shard.
        """

        def exists(name: str) -> bool:
            return self._note(name).exists() and (self.partial / name).exists()

        def make(name: str) -> None:
            path = self.partial / name
            if not path.exists():
                shards[name](path)
            manifest.write_whole(self._note(name), json.dumps(describe(path)))

        share_work(list(shards), exists, make)
        return [json.loads(self._note(name).read_text(encoding="utf-8")) for name in shards]

    def _note(self, name: str) -> Path:
        return self._folder / f"{name}.json"
