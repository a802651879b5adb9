"""Where the page listens, and how much it lets anybody ask of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from stylecap.errors import OptionError
from stylecap.options import option, validate

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Options of `stylecap ui`.

    Raises:
        OptionError: a value is not allowed; the message names field, value and range.
    """

    host: str = option("127.0.0.1", "address to listen on; only this machine by default")
    port: int = option(7860, "port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    auth: str = option("", "NAME:PASSWORD that everybody is asked for, or $STYLECAP_AUTH")
    root_path: str = option("", "path under which a proxy shows the page, such as /paint")
    folder: str = option(
        "", "where pictures are kept for their day; ~/.cache/stylecap/page if not given"
    )
    captioner: str = option(
        "vgg16", "network whose captioner is used, or a .safetensors file of your own"
    )
    max_size: int = option(
        1536, "largest long side of a painting, in pixels", minimum=64, maximum=20_000
    )
    max_steps: int = option(2000, "most steps of a painting", minimum=1, maximum=100_000)
    max_styles: int = option(6, "most styles in one painting", minimum=1, maximum=50)
    max_megapixels: int = option(
        60, "largest picture that is opened, in million pixels", minimum=1, maximum=300
    )
    max_megabytes: int = option(
        40, "largest file that can be uploaded", minimum=1, maximum=2000, advanced=True
    )
    max_files: int = option(
        200, "most pictures of a folder", minimum=1, maximum=100_000, advanced=True
    )
    max_waiting: int = option(
        12, "jobs that may wait for their turn", minimum=1, maximum=1000, advanced=True
    )
    max_each: int = option(
        2, "jobs that one visitor may have at a time", minimum=1, maximum=1000, advanced=True
    )
    keep_hours: float = option(
        24.0, "hours after which pictures are deleted", minimum=0.01, maximum=8760, advanced=True
    )

    def __post_init__(self) -> None:
        validate(self)
        root = self.root_path
        if root and (not root.startswith("/") or root.endswith("/") or "//" in root):
            raise OptionError(
                f"root_path: expected a path such as /paint, beginning but not ending with a "
                f"slash, got {root!r}"
            )

        name, colon, password = self.auth.partition(":")
        if self.auth and not (name and colon and password):
            raise OptionError("auth: expected NAME:PASSWORD, got something without both")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOCAL_HOSTS
