"""Many sequences through one protocol: in one process or in several, and on from where a killed one stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from tam_backend.drawing import encode_ids
from tam_backend.engines import Engine, load_engine
from tam_backend.errors import TamError
from tam_backend.evaluation.datasets import BrokenSequence, load_sequence
from tam_backend.evaluation.layouts import SequencePaths
from tam_backend.evaluation.protocols import PROTOCOLS
from tam_backend.evaluation.protocols.base import Json, Options, Work
from tam_backend.tracking.filestore import FileStore, write_atomically
from tam_backend.tracking.objects import IdMap

MASKS, HIDDEN = "masks", ".tam"

#: (sequence, share of its work that is done)
Advance = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What is done with every sequence. folder: of ``--out``."""

    engine: str
    protocol: str
    options: Options
    folder: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """result: None if the sequence was skipped; then ``skipped`` says why. known: it was finished before."""

    name: str
    result: Json | None
    skipped: str = ""
    known: bool = False


def known_result(job: Job, paths: SequencePaths) -> Json | None:
    """The result of an earlier call, if the files of the sequence are still the same."""
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads(_result_path(job, paths.name).read_bytes())
        if stored["files"] == _fingerprint(paths):
            return dict(stored["result"])
    return None


def run_sequences(
    job: Job, sequences: list[SequencePaths], engine: Engine, jobs: int, advance: Advance
) -> Iterator[Outcome]:
    """Evaluate sequences; an outcome for each, as they are finished.

    engine: for the work in this process, which is where it is done if ``jobs`` is 1. A sequence that cannot be used, or
    on which the engine fails, is an outcome as well.
    """
    todo = []
    for paths in sequences:
        known = known_result(job, paths)
        if known is not None:
            shutil.rmtree(_store_folder(job, paths.name), ignore_errors=True)  # a kill may have left it
            advance(paths.name, 1.0)
            yield Outcome(paths.name, known, known=True)
        else:
            todo.append(paths)
    if jobs == 1 or len(todo) < 2:
        for paths in todo:
            yield evaluate_sequence(job, paths, engine, advance)
    else:
        yield from _in_processes(job, todo, min(jobs, len(todo)), advance)


def evaluate_sequence(job: Job, paths: SequencePaths, engine: Engine, advance: Advance) -> Outcome:
    """Evaluate one sequence and keep its result."""
    protocol = PROTOCOLS[job.protocol]
    store_folder = _store_folder(job, paths.name)
    try:
        files = _fingerprint(paths)
        sequence = load_sequence(paths, merge=job.options.merge)
        masks = job.folder / MASKS / paths.name
        shutil.rmtree(masks, ignore_errors=True)
        if not protocol.RESUMES:
            shutil.rmtree(store_folder, ignore_errors=True)

        def write(frame: int, ids: IdMap) -> None:
            masks.mkdir(parents=True, exist_ok=True)
            write_atomically(masks / f"{sequence.stems[frame]}.png", encode_ids(ids))

        with sequence.open() as video:
            store = FileStore(store_folder)
            work = Work(engine, sequence, video, store, job.options, lambda share: advance(paths.name, share), write)
            result = {
                "sequence": paths.name,
                "frames": len(video),
                "size": [sequence.width, sequence.height],
                **protocol.run(work),
            }
        path = _result_path(job, paths.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"files": files, "result": result}).encode())
    except BrokenSequence as e:  # it names the sequence
        return Outcome(paths.name, None, skipped=str(e))
    except TamError as e:
        return Outcome(paths.name, None, skipped=f"{paths.name}: {e}")
    except Exception as e:  # one sequence on which an engine fails must not cost the others
        log = job.folder / HIDDEN / "errors" / f"{paths.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        return Outcome(paths.name, None, skipped=f"{paths.name}: {type(e).__name__}: {e} (see {log})")
    shutil.rmtree(store_folder, ignore_errors=True)
    advance(paths.name, 1.0)
    return Outcome(paths.name, result)


def _result_path(job: Job, name: str) -> Path:
    return job.folder / HIDDEN / "results" / f"{name}.json"


def _store_folder(job: Job, name: str) -> Path:
    return job.folder / HIDDEN / "store" / name


def _fingerprint(paths: SequencePaths) -> str:
    """Changes when a file of the sequence is added, removed, or written again."""
    digest = hashlib.blake2b(digest_size=16)
    for folder in (paths.frames, paths.masks):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            stat = path.stat()
            digest.update(f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


_worker: dict[str, Any] = {}


def _in_processes(job: Job, todo: list[SequencePaths], jobs: int, advance: Advance) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    shares = context.SimpleQueue()
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (job.engine, jobs, shares))
    listener = threading.Thread(target=_listen, args=(shares, advance), daemon=True)
    listener.start()
    orderly = False
    try:
        futures: dict[Future[Outcome], str] = {pool.submit(_work, job, paths): paths.name for paths in todo}
        died = False
        for future in as_completed(futures):
            try:
                outcome = future.result()
            except BrokenProcessPool as e:  # out of memory, most likely
                died, name = True, futures[future]
                outcome = Outcome(name, None, skipped=f"{name}: a process at work died ({e})")
            yield outcome
        orderly = not died
    finally:
        if not orderly:  # Ctrl-C: what is half done is not waited for
            for process in list(pool._processes.values()):
                process.kill()
        pool.shutdown(cancel_futures=True)
        if orderly:  # a process that was killed may hold the lock of the queue for ever
            shares.put(None)
            listener.join()


def _listen(shares: Any, advance: Advance) -> None:
    while (item := shares.get()) is not None:
        advance(*item)


def _start_worker(engine: str, jobs: int, shares: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    cv2.setNumThreads(max(1, (os.cpu_count() or 1) // jobs))
    _worker.update(engine=load_engine(engine), shares=shares)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Job, paths: SequencePaths) -> Outcome:
    return evaluate_sequence(job, paths, _worker["engine"], lambda name, share: _worker["shares"].put((name, share)))
