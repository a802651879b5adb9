"""Batches of a visitor: painted in the worker, whether or not a page is open.

    FOLDER/own/VISITOR/BATCH/   batch.json, photos/, styles/, out/, small-N.webp

``batch.json`` is written anew after each picture, and the journal of `stylecap.batch` lies in
``out/``, so that a server that starts again goes on with what it finds.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import shutil
import threading
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecap.errors import InputError, LimitError, StylecapError
from stylecap.files import write_atomically
from stylecap.images import load_picture, split_alpha
from stylecap.progress import Progress
from stylecap.server.faults import note, public_words
from stylecap.server.jobs import BATCH, Job
from stylecap.server.painting import PaintRequest, check_file, check_request, save_small
from stylecap.style.options import StyleOptions

if TYPE_CHECKING:
    from stylecap.server.site import Site

GOING, STOPPED, DONE, FAILED = "going", "stopped", "done", "failed"
_FILE = "batch.json"


@dataclass(frozen=True, slots=True)
class Painted:
    """One picture of a batch.

    Attributes:
        output: name of its file.
        small: name of a small copy to show; empty if it failed.
        error: why it failed, as the page may say it; empty if it did not.
    """

    output: str
    small: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it is on disk.

    Attributes:
        name: of its folder; sorts by time.
        photos: names of the files in ``photos/``.
        styles: built-in names, and names of files in ``styles/`` with that folder before them.
        options: of every painting.
        state: ``going``, ``stopped``, ``done`` or ``failed``.
        painted: what has ended so far.
        error: why the whole of it failed.
    """

    name: str
    photos: tuple[str, ...]
    styles: tuple[str, ...]
    options: dict[str, Any]
    state: str = GOING
    painted: tuple[Painted, ...] = ()
    error: str = ""

    @property
    def count(self) -> int:
        """How many pictures it makes."""
        return len(self.photos) * len(self.styles)


class Batches:
    """The batches of all visitors.

    Args:
        site: whose store and worker are used.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(
        self,
        owner: str,
        photos: Sequence[Path],
        styles: Sequence[str | Path],
        options: StyleOptions,
    ) -> Batch:
        """Put a batch into the line.

        Raises:
            LimitError, OptionError: it is beyond the limits of the page.
            BusyError: too many wait.
        """
        limits = self._site.options
        if not photos:
            raise InputError("photos: expected at least one")
        count = len(photos) * max(1, len(styles))
        if count > limits.max_files:
            raise LimitError(
                f"batch: this page paints up to {limits.max_files} pictures at a time, got {count}"
            )
        check_request(PaintRequest(photos[0], tuple(styles), options), limits)
        for path in (*photos, *(style for style in styles if isinstance(style, Path))):
            check_file(path, limits)
        folder = self._site.history.new_folder(owner)
        try:
            names = _copied(photos, folder / "photos")
            own = iter(_copied([s for s in styles if isinstance(s, Path)], folder / "styles"))
            manners = [s if isinstance(s, str) else f"styles/{next(own)}" for s in styles]
            batch = Batch(folder.name, tuple(names), tuple(manners), asdict(options))
            _write(folder, batch)
            self._submit(owner, batch)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return batch

    def all_of(self, owner: str) -> list[Batch]:
        """A visitor's batches, the latest first."""
        found = [_read(folder) for folder in self._site.history.folders(owner)]
        return [batch for batch in found if batch is not None]

    def progress(self, name: str) -> tuple[int, Progress | None] | None:
        """Place in the line and the painting that goes on, of a batch that waits or runs."""
        job = self._jobs.get(name)
        if job is None or job.ended:
            return None
        return self._site.queue.place(job), job.progress

    def stop(self, owner: str, name: str) -> None:
        """Stop a batch; what is painted stays."""
        batch = self._batch(owner, name)
        if batch is not None and batch.state == GOING:
            self._update(owner, name, state=STOPPED)
            job = self._jobs.get(name)
            if job is not None:
                self._site.queue.end(job)

    def remove(self, owner: str, name: str) -> None:
        """Stop a batch and delete all of it."""
        self.stop(owner, name)
        job = self._jobs.get(name)
        if job is not None:
            job.wait(10)
        if self._batch(owner, name) is not None:
            self._site.history.remove(owner, name)

    def remove_all(self, owner: str) -> None:
        """Stop a visitor's batches, and delete all that they painted or sent."""
        for batch in self.all_of(owner):
            self.stop(owner, batch.name)
        self._site.history.remove(owner)
        self._site.forget_uploads(owner)

    def pack(self, owner: str, name: str) -> Path:
        """A ZIP of what is painted so far, with a table of everything.

        Raises:
            InputError: there is no such batch.
        """
        batch, folder = self._batch(owner, name), self._site.history.place(owner, name)
        if batch is None or folder is None:
            raise InputError("this batch is no longer kept")
        temporary, target = folder / f".all-{secrets.token_hex(4)}.zip", folder / "all.zip"
        try:  # two may ask at the same time
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for each in batch.painted:
                    if not each.error:
                        archive.write(folder / "out" / each.output, each.output)
                archive.writestr("results.csv", _table(batch))
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def resume(self) -> None:
        """Go on with what a server that was here before left unfinished."""
        for owner in self._site.history.owners():
            for batch in reversed(self.all_of(owner)):
                if batch.state == GOING:
                    try:
                        self._submit(owner, batch, unlimited=True)
                    except StylecapError as error:
                        note(error)

    def _submit(self, owner: str, batch: Batch, *, unlimited: bool = False) -> None:
        job = self._site.queue.submit(
            owner,
            "",
            lambda job: self._paint(owner, batch.name, job),
            BATCH,
            unlimited=unlimited,
        )
        with self._lock:
            self._jobs = {name: old for name, old in self._jobs.items() if not old.ended}
            self._jobs[batch.name] = job

    def _paint(self, owner: str, name: str, job: Job) -> None:
        """Paint what is not painted yet; for the worker."""
        from stylecap import batch as batches

        batch, folder = self._batch(owner, name), self._site.history.place(owner, name)
        if batch is None or folder is None:
            return

        def tell(event: Any) -> None:
            if event.progress is not None:
                job.progress = replace(event.progress, preview=None)
            job.give_way()

        try:
            jobs = batches.plan_jobs(
                [folder / "photos" / photo for photo in batch.photos],
                [str(folder / s) if s.startswith("styles/") else s for s in batch.styles],
                StyleOptions(**batch.options),
            )
            # One picture at a time, which leaves memory for those that it lets pass.
            once = batches.BatchOptions(workers=1, together=1)
            painted: list[Painted] = []
            results = batches.run(
                jobs, folder / "out", once, on_event=tell, should_stop=job.should_stop
            )
            for result in results:
                painted.append(_shown(folder, jobs.index(result.job), result))
                self._update(owner, name, painted=tuple(painted))
            if not job.should_stop():
                self._update(owner, name, state=DONE)
        except Exception as error:
            fault = note(error)
            reason = fault.reason or f"unexpected error, in the log as {fault.number}"
            self._update(owner, name, state=FAILED, error=reason)
        finally:
            if not (folder / _FILE).exists():  # it was deleted while it was painted
                shutil.rmtree(folder, ignore_errors=True)

    def _batch(self, owner: str, name: str) -> Batch | None:
        folder = self._site.history.place(owner, name)
        return None if folder is None else _read(folder)

    def _update(self, owner: str, name: str, **changes: Any) -> None:
        with self._lock:
            batch, folder = self._batch(owner, name), self._site.history.place(owner, name)
            if batch is not None and folder is not None:
                _write(folder, replace(batch, **changes))


def _copied(paths: Sequence[Path], folder: Path) -> list[str]:
    """Copy files into a folder, none over another."""
    folder.mkdir()
    names = []
    for path in paths:
        name, number = path.name.lstrip(".") or "picture", 2
        while (folder / name).exists():
            name, number = f"{path.stem}-{number}{path.suffix}", number + 1
        shutil.copyfile(path, folder / name)
        names.append(name)
    return names


def _shown(folder: Path, number: int, result: Any) -> Painted:
    """A result with a small copy to show."""
    output = result.job.output
    if result.status == "failed":
        return Painted(output, error=public_words(result.error))
    small = folder / f"small-{number}.webp"
    if not small.is_file():
        picture = split_alpha(load_picture(folder / "out" / output))[0]
        save_small(picture, small)
    return Painted(output, small.name)


def _write(folder: Path, batch: Batch) -> None:
    write_atomically(folder / _FILE, json.dumps(asdict(batch)).encode())


def _read(folder: Path) -> Batch | None:
    with suppress(OSError, ValueError, TypeError):
        values = json.loads((folder / _FILE).read_text("utf-8"))
        values["painted"] = tuple(Painted(**each) for each in values["painted"])
        for name in ("photos", "styles"):
            values[name] = tuple(values[name])
        return Batch(**values)
    return None


def _table(batch: Batch) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(("picture", "problem"))
    writer.writerows((each.output, each.error) for each in batch.painted)
    return stream.getvalue()
