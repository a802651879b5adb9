"""What can be chosen about a batch; no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from stylecap.errors import OptionError
from stylecap.files import QUALITY
from stylecap.options import option, validate


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options of `stylecap.batch.run`.

    Raises:
        OptionError: a value is not allowed; the message names field, value and range.
    """

    workers: int | None = option(
        None,
        "processes that paint at the same time; one for each GPU, or one, if not given",
        minimum=1,
        maximum=1024,
    )
    together: int | None = option(
        None,
        "pictures that are painted as one batch where options, styles and size are the same, as "
        "far as they fit into memory; up to 16 on a GPU and 1 on a CPU if not given",
        minimum=1,
        maximum=1024,
        advanced=True,
    )
    caption: bool = option(False, "also describe contents and results in words")
    card: bool = option(False, "also judge each result, as `stylecap quality` does")
    overwrite: bool = option(False, "start again, and replace results that are there")
    quality: int = option(
        QUALITY,
        "of JPEG, WebP and AVIF results; another one alone paints nothing again",
        minimum=1,
        maximum=100,
    )
    checkpoint_seconds: float = option(
        30.0,
        "time between two checkpoints of a running job, longer where writing one is slow; "
        "0 writes one after every step",
        minimum=0,
        advanced=True,
    )
    retries: int = option(
        2, "how often a job whose worker died is tried again", minimum=0, maximum=100, advanced=True
    )
    executor: str = option(
        "local",
        "who paints: processes of this machine, or a Ray cluster (pip install 'stylecap[ray]')",
        choices=("local", "ray"),
        advanced=True,
    )
    ray_address: str = option(
        "", "address of the Ray cluster; a local one is started if not given", advanced=True
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.ray_address and self.executor != "ray":
            raise OptionError("ray_address: needs executor ray, got executor local")
