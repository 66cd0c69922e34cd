"""The build of a data set from raw footage: gathers the input, runs the pipeline, finishes shards and decisions.

Decoded results lie in OUT.partial by the hash of their input: a build that was interrupted, anywhere and
in any way, resumes and ends with the same bytes as one that was not, whatever the number of workers.
"""

import argparse
import dataclasses
import json
import logging
import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from videodit_data.footage import build_directory, decisions, describe, file_system, sources, stages
from videodit_data.footage.config import BuildConfig
from videodit_data.footage.pipeline import SOURCES, UNUSABLE, Plan, assemble
from videodit_data.footage.shards import described
from videodit_data.storage.manifest import LeftOut, Manifest, Progress, lock

_LOCAL = ("", "DirectRunner", "FnApiRunner", "direct")
_EXAMPLES = 5  # reasons that an error names


def build(
    inputs: Sequence[str],
    out: str | os.PathLike[str],
    config: BuildConfig,
    *,
    cache: str | None = None,
    beam_options: Sequence[str] = (),
    follow_links: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Build a data set in `out` from the footage that globs, folders or files match; returns its manifest.

    Nothing is done when `out` is already built from the same input and configuration.

    Args:
        cache: folder in which analyses of sources are kept for other builds; in OUT.partial, for this one, if None.
        beam_options: Beam's own, such as --runner=DataflowRunner; on this machine, with a thread a core, if none.
        follow_links: whether links in the inputs' folders are followed out of them.

    Raises:
        ValueError: when no source matches or can be used, no clip is kept, `out` holds something else or, on this file
            system, is built by another process, or an option is not one of Beam's.
    """
    out, options = _absolute(os.fspath(out)), _parse_options(beam_options)
    report = progress or (lambda stage, done, total: None)
    identity = json.loads(json.dumps(dataclasses.asdict(config)))
    identity["captioner"] = config.captioner.identity()
    info: dict[str, Any] = {"made_by": "build", "config": identity}
    build_directory.check_unused(out, info)  # before all input is read
    build_input = sources.gather(
        inputs,
        captions=config.captions.table,
        source=config.source,
        licence=config.licence,
        without=(out, build_directory.partial(out)),
        follow_links=follow_links,
        progress=lambda done, total: report("hash", done, total),
    )
    info["input"] = build_input.digest
    if (finished := build_directory.find_finished(out, info)) is not None:
        return finished
    with ExitStack() as stack:
        if not file_system.is_remote(out):
            stack.enter_context(lock(Path(out)))
        return _build(out, info, build_input, config, cache, options, report)


def _build(
    out: str,
    info: dict[str, Any],
    build_input: sources.Input,
    config: BuildConfig,
    cache: str | None,
    options: PipelineOptions,
    report: Progress,
) -> Manifest:
    """Build the data set of an input; ValueError as `build`."""
    if (finished := build_directory.find_finished(out, info)) is not None:
        return finished  # by another process, in the meantime
    directory = build_directory.open_partial(out, info)
    analyses = file_system.join(directory, "analysis") if cache is None else _absolute(cache)
    file_system.make_folder(analyses)
    lists = {SOURCES: [each.to_json() for each in build_input.sources], UNUSABLE: map(json.dumps, build_input.unusable)}
    for name, lines in lists.items():
        file_system.write(file_system.join(directory, name), "".join(line + "\n" for line in lines).encode())
    plan = Plan(config, directory, len(build_input.sources), analyses)
    with _report_progress(plan, len({each.hash for each in build_input.sources}), report):
        _run(plan, options)
    descriptions = described(file_system.join(directory, build_directory.NOTES))
    left_out = _left_out(directory)
    if not descriptions:
        examples = "".join(f"\n  {each.file}: {each.reason}" for each in left_out[:_EXAMPLES])
        raise ValueError(
            f"No clip of {len(build_input.sources)} sources is kept; {directory} has the reason for each:{examples}"
        )
    return build_directory.finish(out, descriptions, info, left_out)


def _absolute(path: str) -> str:
    return path if file_system.is_remote(path) else os.path.abspath(os.path.expanduser(path))


def _parse_options(options: Sequence[str]) -> PipelineOptions:
    """Parse Beam's options. ValueError for one that Beam would ignore: a build meant for a cluster would run here."""
    parser, kinds = (
        argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve"),
        [PipelineOptions],
    )
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        kind._add_argparse_args(parser)
    if unknown := parser.parse_known_args(list(options))[1]:
        raise ValueError(f"Beam has no option {unknown[0]}; the configuration's go before the --.")
    parsed = PipelineOptions(list(options))
    name = parsed.view_as(StandardOptions).runner or ""
    if name not in _LOCAL:
        create_runner(name)
    elif not any(option.startswith(("--direct_running_mode", "--direct_num_workers")) for option in options):
        direct = parsed.view_as(DirectOptions)
        direct.direct_running_mode, direct.direct_num_workers = "multi_threading", os.cpu_count() or 1
    return parsed


def _run(plan: Plan, options: PipelineOptions) -> None:
    """Run the pipeline to its end."""
    runner: Any = options.view_as(StandardOptions).runner or ""
    # Beam's own choice for DirectRunner would download a runner; this one is embedded.
    pipeline = beam.Pipeline(runner=FnApiRunner() if runner in _LOCAL else runner, options=options)
    assemble(pipeline, plan)
    with _end_stages_on_interrupt():
        pipeline.run().wait_until_finish()


@contextmanager
def _end_stages_on_interrupt() -> Iterator[None]:
    """Make Ctrl-C end the stages' processes, so that Beam's threads, which cannot be interrupted, end as well."""
    stages.resume()
    disabled = logging.root.manager.disable

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before)
        logging.disable()  # Beam logs errors of work that is ended
        stages.stop()
        describe.stop()
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if main:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Exception as error:
        if stages.stopped():
            raise KeyboardInterrupt from error
        raise RuntimeError(_sentence(error)) from error
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
        logging.disable(disabled)
        stages.stop()
        describe.stop()


def _sentence(error: Exception) -> str:
    """Return the message of a stage's error, without the traceback that Beam makes part of it."""
    errors = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception)): (.+)", str(error), re.MULTILINE)
    kind, words = errors[-1] if errors else (type(error).__name__, str(error))
    words = re.sub(r"\s*\[while running [^\]]*\]", "", words)
    return words if kind in ("ValueError", "RuntimeError", "VideoError") else f"{kind}: {words}"


@contextmanager
def _report_progress(plan: Plan, contents: int, report: Progress, every: float = 0.5) -> Iterator[None]:
    """Report progress by the number of files in the partial directory's folders, which every worker writes to.

    Files of the same bytes are analysed once, so that there are as many analyses as `contents`.
    """
    stop_event = threading.Event()

    def look() -> None:
        folders = {"analyse": plan.analyses, "cut": plan.folder("clips"), "caption": plan.folder("captions")}
        counts = dict.fromkeys(folders, 0)
        while not stop_event.wait(every):
            for what, folder in folders.items():
                if (count := _notes(folder)) != counts.get(what):
                    total = contents if what == "analyse" else count
                    report(what, min(count, total), total)
                    counts[what] = count

    if file_system.is_remote(plan.directory) or file_system.is_remote(plan.analyses):
        yield
        return
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop_event.set()
        thread.join()


def _notes(folder: str) -> int:
    return sum(name.endswith(".json") for name in os.listdir(folder))


def _left_out(directory: str) -> list[LeftOut]:
    """Return what was dropped, by reason; the table of decisions has each row."""
    with _table_here(directory) as local:
        tallies = decisions.tally(local)
    return [
        LeftOut(tally.example, f"{stage}: {reason}", tally.rows)
        for (stage, reason), tally in tallies.items()
        if stage != "kept"
    ]


@contextmanager
def _table_here(directory: str) -> Iterator[Path]:
    """Yield a local directory that holds the table of decisions."""
    if not file_system.is_remote(directory):
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, decisions.FOLDER)
        folder.mkdir()
        for name, path in file_system.files(file_system.join(directory, decisions.FOLDER)).items():
            (folder / name).write_bytes(file_system.read(path))
        yield Path(scratch)
