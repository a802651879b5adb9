"""The web page, ``ui/``: beside this package in a checkout, inside it in a wheel.

A wheel carries the folder as ``stylecap/_ui``, which Python prefers to this file.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent.parent / "ui")]
