"""Find, verify and fetch weight files. Every folder of them holds a ``manifest.json``.

A name is looked for in this order: the folder given, ``$STYLECAP_WEIGHTS``, the installed
package, the checkout, and the user's own folder, where `fetch` puts what it brings.
Files are safetensors; their sha256 is compared with the manifest before they are used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

from stylecap.errors import InputError, WeightsError
from stylecap.files import cache_folder, file_sha256, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
VARIABLE = "STYLECAP_WEIGHTS"


@dataclass(frozen=True, slots=True)
class Fetchable:
    """Weights that are not in our package.

    Attributes:
        enum: torchvision's name for them; their download address ends in their hash.
        about: what they are, and how large.
        prefix: of the tensors that are kept.
        tensor: one that has to be among them.
    """

    enum: str
    about: str
    prefix: str = ""
    tensor: str = "features.0.weight"


FETCHABLE: Mapping[str, Fetchable] = {
    "vgg19": Fetchable(
        "VGG19_Weights", "VGG-19 convolutions (548 MB to download, 80 MB kept)", "features."
    ),
    "vgg16-classifier": Fetchable("VGG16_Weights", "VGG-16 with its classifier (528 MB)"),
    "vgg19-classifier": Fetchable("VGG19_Weights", "VGG-19 with its classifier (548 MB)"),
    "alexnet-classifier": Fetchable("AlexNet_Weights", "AlexNet with its classifier (233 MB)"),
    "faster-rcnn": Fetchable(
        "FasterRCNN_ResNet50_FPN_Weights",
        "Faster R-CNN, a detector of 80 kinds of things (160 MB)",
        tensor="backbone.body.conv1.weight",
    ),
}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One entry of a manifest.

    Attributes:
        name: what programs ask for.
        file: its name in the folder.
        bytes: size.
        sha256: of the whole file.
        licence: under which it may be passed on.
        source: where the numbers come from.
        command: what made the file.
    """

    name: str
    file: str
    bytes: int
    sha256: str
    licence: str
    source: str
    command: str


def weight_folders(folder: str | Path | None = None) -> list[Path]:
    """The folders that are searched, in order; they need not exist."""
    if folder is not None:
        return [Path(folder)]
    package = Path(__file__).parent
    named = os.environ.get(VARIABLE)
    folders = [
        *([Path(named)] if named else []),
        package / "_weights",
        package.parent / "weights",
    ]
    with suppress(RuntimeError):  # nobody's home
        folders.append(user_folder())
    return folders


def user_folder() -> Path:
    """Where fetched weights are kept: stylecap/weights in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return cache_folder() / "weights"


def registry(folder: str | Path | None = None) -> dict[str, tuple[WeightFile, Path]]:
    """Every weight file that a manifest names, with the path where it should lie.

    Raises:
        WeightsError: a manifest is not one.
    """
    found: dict[str, tuple[WeightFile, Path]] = {}
    for place in weight_folders(folder):
        for name, entry in _read_manifest(place).items():
            found.setdefault(name, (entry, place / entry.file))
    return found


def find_weights(name: str, folder: str | Path | None = None) -> Path:
    """Path of a weight file whose size and sha256 agree with its manifest.

    Raises:
        WeightsError: it is in none of the places, or it is corrupt or truncated.
    """
    return _locate(name, folder)[1]


def verify(entry: WeightFile, path: Path) -> None:
    """Compare a file with its manifest entry.

    Raises:
        WeightsError: it is missing, has another size or another sha256.
    """
    again = "install stylecap again"
    if entry.name in FETCHABLE:
        again = f"`stylecap weights fetch {entry.name}` brings it again"
    if not path.is_file():
        raise WeightsError(f"weights {entry.name}: {path} is missing; {again}")
    size = path.stat().st_size
    if size != entry.bytes:
        raise WeightsError(
            f"weights {entry.name}: {path} has {size:,} bytes, expected {entry.bytes:,}; "
            f"it is truncated or another file; {again}"
        )
    found = file_sha256(path)
    if found != entry.sha256:
        raise WeightsError(
            f"weights {entry.name}: {path} has sha256 {found}, expected {entry.sha256}; "
            f"it is corrupt; {again}"
        )


def load_weights(name: str, folder: str | Path | None = None) -> dict[str, Tensor]:
    """Tensors of a verified weight file, in the precision in which it is stored.

    Raises:
        WeightsError: as `find_weights`.
    """
    from safetensors.torch import load_file

    return load_file(find_weights(name, folder))


def weights_sha256(name: str, folder: str | Path | None = None) -> str:
    """The sha256 that the manifest promises, for run records; the file is not read.

    Raises:
        WeightsError: no manifest names it.
    """
    return _entry(name, folder)[0].sha256


def fetch(name: str, source: str | Path | None = None, folder: str | Path | None = None) -> Path:
    """Bring weights that we do not ship, through torchvision's download or from a file.

    Args:
        name: one of `FETCHABLE`.
        source: a ``.safetensors`` file with torchvision's tensor names, or torchvision's own
            ``.pth`` (whose hash is in its name and is checked); None downloads it.
        folder: where to keep it; the user's folder if None.
    Returns:
        Path of the safetensors file, now known to `find_weights`.
    Raises:
        WeightsError: unknown name, no connection, wrong hash or wrong content.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    if name not in FETCHABLE:
        raise WeightsError(
            f"weights {name!r} cannot be fetched; available without internet: "
            f"{', '.join(registry()) or 'none'}; fetchable: {', '.join(FETCHABLE)}"
        )
    place = Path(folder) if folder is not None else user_folder()
    if source is None:
        origin = _torchvision_url(name)
        tensors = _download(name, origin)
    elif Path(source).suffix == ".pth":
        origin = _torchvision_url(name)
        tensors = _read_known_pth(name, Path(source), origin)
    else:
        origin = Path(source).name
        try:
            tensors = load_file(source)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"weights {name}: {source} is not safetensors: {error}") from error
    wanted = FETCHABLE[name]
    tensors = {key: value for key, value in tensors.items() if key.startswith(wanted.prefix)}
    if wanted.tensor not in tensors:
        raise WeightsError(
            f"weights {name}: expected torchvision's tensor names ({wanted.tensor}, ...), "
            f"got {', '.join(list(tensors)[:3]) or 'no tensors'}"
        )
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{name}.safetensors"
    write_atomically(path, save({key: value.contiguous() for key, value in tensors.items()}))
    entry = WeightFile(
        name=name,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        licence="BSD-3-Clause (torchvision)",
        source=origin,
        command=f"stylecap weights fetch {name}",
    )
    write_manifest(place, {**_read_manifest(place), name: entry})
    return path


def write_manifest(place: Path, entries: Mapping[str, WeightFile]) -> None:
    """Replace a folder's manifest, atomically."""
    listed = [asdict(entries[name]) for name in sorted(entries)]
    write_atomically(place / MANIFEST, (json.dumps(listed, indent=2) + "\n").encode())


def _read_manifest(place: Path) -> dict[str, WeightFile]:
    path = place / MANIFEST
    if not path.is_file():
        return {}
    try:
        entries = [WeightFile(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} is not a manifest of weights: {error}") from error
    return {entry.name: entry for entry in entries}


def _entry(name: str, folder: str | Path | None) -> tuple[WeightFile, Path]:
    known = registry(folder)
    if name in known:
        return known[name]
    places = ", ".join(str(place) for place in weight_folders(folder))
    hint = f"; `stylecap weights fetch {name}` brings it" if name in FETCHABLE else ""
    raise WeightsError(
        f"weights {name!r} are not here; looked in {places}; "
        f"available without internet: {', '.join(known) or 'none'}{hint}"
    )


def _locate(name: str, folder: str | Path | None) -> tuple[WeightFile, Path]:
    entry, path = _entry(name, folder)
    verify(entry, path)
    return entry, path


def _torchvision_url(name: str) -> str:
    from torchvision.models import get_weight

    return str(get_weight(f"{FETCHABLE[name].enum}.DEFAULT").url)


def _download(name: str, url: str) -> dict[str, Tensor]:
    from torch.hub import load_state_dict_from_url

    try:
        return dict(
            load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
        )
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"weights {name}: download from {url} failed ({error}); available without internet: "
            f"{', '.join(registry())}; or download the file elsewhere and name it with --file"
        ) from error


def _read_known_pth(name: str, path: Path, url: str) -> dict[str, Tensor]:
    import torch

    promised = Path(url).stem.rsplit("-", 1)[1]
    try:
        found = file_sha256(path)
    except InputError as error:
        raise WeightsError(f"weights {name}: {error}") from error
    if not found.startswith(promised):
        raise WeightsError(
            f"weights {name}: {path} has sha256 {found[:16]}..., but a .pth is only read when it "
            f"is torchvision's own, whose sha256 begins with {promised}; give safetensors instead"
        )
    return dict(torch.load(path, map_location="cpu", weights_only=True))
