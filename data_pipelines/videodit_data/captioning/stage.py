"""The stage that captions a data set anew: the same videos with more captions, and a reason for each failure.

Answers are recorded in a journal in `OUT.partial` as they arrive. A resumed run requests only missing answers, and the
same answers give the same bytes, for any number of threads and any batch size.
"""

import hashlib
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from videodit_data.captioning.captioner import Answer, Captioner, Failure, Identity, Keep, ask, merge_captions
from videodit_data.captioning.journal import Entry, Journal, read_entry
from videodit_data.captioning.lengths import Length
from videodit_data.captioning.look import Look
from videodit_data.formats import format_name
from videodit_data.storage import manifest
from videodit_data.storage.manifest import Manifest, Progress
from videodit_data.storage.records import Record, RecordSource, write_shard
from videodit_data.storage.whole_file import replace_whole
from videodit_data.video import VideoError

ANSWERS = "captioning.jsonl"  # in the data set: the answers about each clip, in order
_JOURNAL = "answers.jsonl"
_UNDECODABLE = "not decodable"
_AHEAD = 16  # batches per thread that may wait for a slow one
_INTERRUPT_SECONDS = 1.0  # that answers under way have after Ctrl-C


class Hopeless(RuntimeError):
    """None of the first clips could be captioned; no data set is written."""


def caption_dataset(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    captioner: Captioner,
    identity: Identity,
    *,
    lengths: Sequence[Length],
    keep: Keep = "after",
    look: Look | None = None,
    batch: int = 1,
    threads: int = 1,
    hopeless: int = 12,
    reuse: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Build a data set in `out` of the videos of `dataset` with the captioner's captions; returns its manifest.

    The manifest's `info` names the captioner and counts clips captioned and failed, these by reason; `captioning.jsonl`
    next to it names them. Nothing is done when `out` is already built from the same input.

    Args:
        keep: where the captions that a clip has stay: before the new ones, after them, or nowhere. A clip that fails
            keeps its captions.
        batch: clips of one call of the captioner. threads: that call it.
        hopeless: first clips that all fail until the run is stopped, other than those that cannot be decoded.
        reuse: an earlier result, whose valid answers to the same questions are reused.

    Raises:
        Hopeless: when none of the first clips got a caption. Their failures are not recorded: the next run retries.
        ValueError: when `dataset` holds latents or is one of TensorFlow Datasets, `out` holds something else or is
            built by another process, or the captioner returns other than answers.
    """
    dataset, out, look = Path(dataset), Path(out), look or Look()
    if hopeless < 1:
        raise ValueError(f"Captioning is given up after at least one failed clip, not {hopeless}.")
    if batch < 1 or threads < 1:
        raise ValueError(f"Captioning needs at least one clip a batch and one thread, not {batch} and {threads}.")
    if format_name(dataset):
        raise ValueError(f"{dataset} has single pictures and no video files, which a captioned data set is made of.")
    described = manifest.load(dataset)
    if described.content != "video":
        raise ValueError(f"{dataset} holds latents, which no captioner can see; caption the videos, then encode them.")
    settings = {"lengths": {each.name: each.words for each in lengths}, "look": asdict(look)}
    info = {
        "made_by": "caption",
        "input": {"shards": [shard.sha256 for shard in described.shards], "info": described.info},
        "captioner": identity.to_json() | settings,
        "keep": keep,
        "world": described.info.get("world"),
    }
    if (finished := _finished(out, info)) is not None:
        return finished

    partial = manifest.partial_directory(out)
    with ExitStack() as stack:
        stack.enter_context(manifest.lock(out))
        if (finished := _finished(out, info)) is not None:
            return finished  # by another process, in the meantime
        partial.mkdir(parents=True, exist_ok=True)
        journal = stack.enter_context(Journal(partial / _JOURNAL))
        if (partial / ANSWERS).is_file():  # a run that was interrupted between its last two steps
            _take_over(partial, journal)
        if reuse is not None:
            _take_over(Path(reuse), journal)
        about = json.dumps([info["captioner"], identity.digest], sort_keys=True)
        asker = _Asker(manifest.records(dataset), captioner, lengths, look, about, journal)
        report = progress or (lambda stage, done, total: None)
        entries = _ask_all(asker, described.clips, batch, threads, hopeless, report)
        info = _plain(info | {"captions": _counts(entries)})
        return _write(out, described, asker, entries, identity, info, progress)


def summarize(manifest_: Manifest, out: Path) -> str:
    """Return how many clips have new captions, and why others do not."""
    info = manifest_.info["captions"]
    failed = ", ".join(f"{count} {reason}" for reason, count in info["failed"].items())
    named = f"; the others keep their captions ({failed}), listed in {out / ANSWERS}" if failed else ""
    return f"{info['captioned']} of {manifest_.clips} clips captioned{named}"


def _plain(info: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(info))


def _finished(out: Path, info: Mapping[str, Any]) -> Manifest | None:
    """Return the finished data set, whichever of its clips failed: this is unknown before captioning."""
    counts = manifest.load(out).info.get("captions") if (out / manifest.FILE).exists() else None
    return manifest.already_built(out, _plain(info) | {"captions": counts})


def _take_over(earlier: Path, journal: Journal) -> None:
    """Copy valid answers of an earlier result into the journal."""
    path = earlier / ANSWERS
    if not path.is_file():
        raise ValueError(f"{earlier} has no {ANSWERS}: it is no data set that was captioned here.")
    with path.open("rb") as file:
        lines = (read_entry(line, f"{path}, line {number}") for number, line in enumerate(file, 1))
        entries = [entry for entry in lines if not isinstance(entry.answer, Failure)]
    journal.put([entry for entry in entries if journal.get(entry.question) is None])


class _Start:
    """A buffer of failures until the first success: those of a misconfigured captioner are not recorded."""

    def __init__(self) -> None:
        self.pending: list[Entry] = []
        self.good, self._lock = False, threading.Lock()

    def to_note(self, entries: Sequence[Entry], good: bool) -> list[Entry]:
        """Return which of these and of the buffered entries to record now."""
        with self._lock:
            self.good |= good
            all_entries = [*self.pending, *entries]
            self.pending = [] if self.good else all_entries
            return all_entries if self.good else []


@dataclass(frozen=True)
class _Asker:
    """A worker that captions clips without an answer in the journal, and records final answers."""

    records: RecordSource
    captioner: Captioner
    lengths: Sequence[Length]
    look: Look
    about: str  # all that an answer depends on apart from the clip
    journal: Journal
    start: _Start = field(default_factory=_Start)

    def __call__(self, numbers: range) -> list[Entry]:
        """Return entries of the clips; the text of their captions is in the journal."""
        entries: dict[int, Entry] = {}
        clips, unanswered = [], []
        for number in numbers:
            record = self.records[number]
            entry = Entry(record.id, record.sha256, self._question(record), {})
            answer = self.journal.get(entry.question)
            if answer is None:
                try:
                    clips.append(self.look.at(record))
                    unanswered.append(number)
                except VideoError as error:
                    answer = Failure(_UNDECODABLE, str(error))
            entries[number] = replace(entry, answer=answer or {})
        for number, answer in zip(unanswered, ask(self.captioner, clips, self.lengths), strict=True):
            entries[number] = replace(entries[number], answer=answer)
        lasting = [entries[number] for number in unanswered if _lasts(entries[number].answer)]
        good = any(not isinstance(entry.answer, Failure) for entry in entries.values())
        self.journal.put(self.start.to_note(lasting, good))
        return [entry if isinstance(entry.answer, Failure) else replace(entry, answer={}) for entry in entries.values()]

    def _question(self, record: Record) -> str:
        question = json.dumps([self.about, record.id, record.sha256, record.captions])
        return hashlib.sha256(question.encode()).hexdigest()[:32]

    def with_text(self, entry: Entry) -> Entry:
        """Return the entry with its text."""
        if isinstance(entry.answer, Failure):
            return entry
        answer = self.journal.get(entry.question)
        assert answer is not None, entry
        return replace(entry, answer=answer)

    def stop(self, *, cut: bool = False) -> None:
        """Stop the captioner's requests, if it supports this."""
        stop = getattr(self.captioner, "stop", None)
        if stop is not None:
            stop(cut=cut)


def _lasts(answer: Answer) -> bool:
    return not isinstance(answer, Failure) or answer.lasting


def _ask_all(asker: _Asker, clips: int, batch: int, threads: int, hopeless: int, report: Progress) -> list[Entry]:
    """Return one entry per clip, in order. `Hopeless` when all of the first clips failed.

    When an error ends it early, answers in flight are awaited and recorded; on Ctrl-C, those that come at once.
    """
    entries: list[Entry] = []
    futures: deque[Future[list[Entry]]] = deque()

    def take() -> None:
        entries.extend(futures[0].result())  # it stays in the queue until it has ended
        futures.popleft()
        report("caption", len(entries), clips)
        if not asker.start.good:
            _check_hope(entries, hopeless)

    pool = ThreadPoolExecutor(threads)
    try:
        for start in range(0, clips, batch):
            futures.append(pool.submit(asker, range(start, min(start + batch, clips))))
            if len(futures) > _AHEAD * threads:
                take()
        while futures:
            take()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        asker.stop()
        running = [future for future in futures if not future.done()]
        wait(running, _INTERRUPT_SECONDS if isinstance(error, KeyboardInterrupt) else None)
        asker.stop(cut=True)
        raise
    pool.shutdown()
    return entries


def _check_hope(entries: Sequence[Entry], hopeless: int) -> None:
    failed = [entry.answer for entry in entries if isinstance(entry.answer, Failure)]
    failed = [failure for failure in failed if failure.reason != _UNDECODABLE]
    if len(failed) >= hopeless:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(f.reason for f in failed).items()))
        raise Hopeless(
            f"The first {len(failed)} clips sent to the captioner all failed ({reasons}; the last: "
            f"{failed[-1].detail[:200] or failed[-1].reason}), so that the run is stopped and nothing is made: see to "
            "the captioner, and the same command asks again."
        )


def _counts(entries: Sequence[Entry]) -> dict[str, Any]:
    reasons = Counter(entry.answer.reason for entry in entries if isinstance(entry.answer, Failure))
    return {"captioned": len(entries) - reasons.total(), "failed": dict(sorted(reasons.items()))}


def _write(
    out: Path,
    described: Manifest,
    asker: _Asker,
    entries: Sequence[Entry],
    identity: Identity,
    info: Mapping[str, Any],
    progress: Progress | None,
) -> Manifest:
    """Write the data set, in shards like those of its input; returns its manifest."""
    partial, descriptions, clips_written = manifest.start(out, info), [], 0
    for shard in described.shards:
        numbers = range(clips_written, clips_written + len(shard.frames))
        if not (partial / shard.name).exists():
            write_shard(partial / shard.name, _captioned(asker, entries, identity, info["keep"], numbers))
        descriptions.append(manifest.describe(partial / shard.name))
        clips_written = numbers.stop
        if progress is not None:
            progress("write", clips_written, len(entries))
    with replace_whole(partial / ANSWERS) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.writelines(asker.with_text(entry).to_json() + "\n" for entry in entries)
    return manifest.finish(out, descriptions, info=info, left_out=described.left_out, extra=(ANSWERS,))


def _captioned(
    asker: _Asker, entries: Sequence[Entry], identity: Identity, keep: Keep, numbers: range
) -> Iterator[Record]:
    for number in numbers:
        record, answer = asker.records[number], asker.with_text(entries[number]).answer
        if isinstance(answer, Failure):
            yield record
            continue
        earlier_sources = record.caption_sources or ("",) * len(record.captions)
        captions, sources = merge_captions(answer, identity, record.captions, earlier_sources, keep)
        yield replace(record, captions=captions, caption_sources=sources)
