"""Pictures kept on disk for a while, each visitor's in a folder of their own.

    FOLDER/own/VISITOR/ITEM/   result.png, before.webp, small.webp, inputs, item.json
    FOLDER/shared/             what everybody may see
    FOLDER/...                 uploads, as gradio lays them

A visitor is known by a digest of a random cookie, so that the name of the folder, which appears
in addresses, is not the secret that opens it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stylecap.errors import InputError
from stylecap.files import write_atomically

_ITEM = re.compile(r"[0-9]{13}-[0-9a-f]{12}")
_OWNER = re.compile(r"[0-9a-f]{32}")
_FILE = re.compile(r"[^/\\.\0][^/\\\0]*")
MAX_ITEMS = 100  # of one visitor; the oldest go first


def owner_of(secret: str) -> str:
    """The public name of the visitor who holds a cookie."""
    return hashlib.sha256(b"stylecap visitor " + secret.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Item:
    """A picture that was made here.

    Attributes:
        name: of its folder; sorts by time.
        title: what it was made of, such as ``"cat, night-swirls"``.
        created: seconds since 1970.
        record: JSON of the run's record.
        files: names of all files of the item by role: ``result``, ``before``, ``small``,
            ``content``, ``style0`` ...
    """

    name: str
    title: str
    created: float
    record: str
    files: dict[str, str]


class History:
    """The store of all visitors' pictures.

    Args:
        folder: made if it is not there; readable by this user alone.
        keep_seconds: after which everything but what is shared is deleted.
    """

    def __init__(self, folder: Path, keep_seconds: float) -> None:
        self.folder = folder.resolve()
        self.keep_seconds = keep_seconds
        for part in (self.folder, self.folder / "own", self.folder / "shared"):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def shared(self) -> Path:
        """Folder of what everybody may see."""
        return self.folder / "shared"

    def new_folder(self, owner: str) -> Path:
        """An empty folder for a new item; it counts once `add` was called."""
        name = f"{int(time.time() * 1000):013}-{secrets.token_hex(6)}"
        folder = self._home(owner) / name
        folder.mkdir(mode=0o700, parents=True)
        return folder

    def add(self, folder: Path, title: str, record: str, files: dict[str, str]) -> Item:
        """Finish an item whose files are in its folder."""
        item = Item(folder.name, title, time.time(), record, files)
        write_atomically(folder / "item.json", json.dumps(asdict(item)).encode())
        for old in self.items(folder.parent.name)[MAX_ITEMS:]:
            shutil.rmtree(folder.parent / old.name, ignore_errors=True)
        return item

    def items(self, owner: str) -> list[Item]:
        """A visitor's items, the latest first."""
        found = []
        for folder in self.folders(owner):
            with suppress(OSError, ValueError, TypeError):
                found.append(Item(**json.loads((folder / "item.json").read_text("utf-8"))))
        return found

    def item(self, owner: str, name: str) -> Item:
        """One of a visitor's items.

        Raises:
            InputError: they have none of that name, or no longer.
        """
        for item in self.items(owner):
            if item.name == name:
                return item
        raise InputError("this picture is no longer kept; pictures are deleted after a while")

    def path(self, owner: str, item: Item, role: str) -> Path | None:
        """Where one of an item's files is."""
        name = item.files.get(role)
        if name is None or Path(name).name != name:
            return None
        path = self._home(owner) / item.name / name
        return path if path.is_file() else None

    def folders(self, owner: str) -> list[Path]:
        """Folders of all that a visitor has here, the latest first."""
        home = self._home(owner)
        found = sorted(home.iterdir(), reverse=True) if home.is_dir() else []
        return [folder for folder in found if _ITEM.fullmatch(folder.name)]

    def owners(self) -> list[str]:
        """All visitors who have something here."""
        found = (home.name for home in (self.folder / "own").iterdir())
        return sorted(name for name in found if _OWNER.fullmatch(name))

    def place(self, owner: str, name: str) -> Path | None:
        """The folder of one of a visitor's items, finished or not."""
        folder = self._home(owner) / name
        return folder if _ITEM.fullmatch(name) and folder.is_dir() else None

    def file(self, owner: str, name: str, file: str) -> Path | None:
        """A file in the folder of one of a visitor's items, or below it."""
        folder = self.place(owner, name)
        if folder is None or not all(_FILE.fullmatch(part) for part in file.split("/")):
            return None
        path = folder / file
        return path if path.is_file() and self.may_read(owner, path) else None

    def download_name(self, owner: str, name: str, path: Path) -> str:
        """What a file of an item is called where it is saved."""
        if path.stem != "result":
            return path.name
        words = re.findall(r"[^\W_]+", self.item(owner, name).title)
        return ("-".join(words)[:80] or "painting") + path.suffix

    def inputs(self, owner: str) -> list[Path]:
        """All pictures that went into a visitor's items, to find a record's inputs among."""
        return [
            path
            for item in self.items(owner)
            for role in item.files
            if role.startswith(("content", "style", "init", "mask"))
            and (path := self.path(owner, item, role)) is not None
        ]

    def remove(self, owner: str, name: str | None = None) -> None:
        """Delete one item of a visitor, or all."""
        if name is None:
            shutil.rmtree(self._home(owner), ignore_errors=True)
        elif _ITEM.fullmatch(name):
            shutil.rmtree(self._home(owner) / name, ignore_errors=True)

    def may_read(self, owner: str, path: Path) -> bool:
        """Whether a file of the store is shared or this visitor's own, links followed."""
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self.folder):
            return False
        parts = real.relative_to(self.folder).parts
        return parts[:1] == ("shared",) or parts[:2] == ("own", owner)

    def sweep(self) -> int:
        """Delete what is older than it may be; returns the number of files and items."""
        oldest = time.time() - self.keep_seconds
        gone = 0
        for home in (self.folder / "own").iterdir():
            for folder in list(home.iterdir()) if home.is_dir() else []:
                if _modified(folder) < oldest:
                    shutil.rmtree(folder, ignore_errors=True)
                    gone += 1
            with suppress(OSError):
                home.rmdir()  # only if it is empty
        for folder in self.folder.iterdir():
            if folder.name in ("own", "shared"):
                continue
            if _newest(folder) < oldest:
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.unlink(missing_ok=True)
                gone += 1
        return gone

    def _home(self, owner: str) -> Path:
        if not _OWNER.fullmatch(owner):
            raise InputError("this visitor is unknown; reload the page")
        return self.folder / "own" / owner


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _newest(path: Path) -> float:
    inside = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
    return max([_modified(path), *map(_modified, inside)])
