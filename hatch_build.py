"""Carry weights/ and ui/, which lie beside the package, inside the wheel.

Only for the standard wheel: an editable install reads them from the checkout, where a copy
would go stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CarryWeightsAndPage(BuildHookInterface[Any]):
    """Force-include the folders that are there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add ``weights`` as ``stylecap/_weights`` and ``ui`` as ``stylecap/_ui``."""
        if version != "standard":
            return
        for folder, inside in (("weights", "stylecap/_weights"), ("ui", "stylecap/_ui")):
            if (Path(self.root) / folder).is_dir():
                build_data["force_include"][str(Path(self.root) / folder)] = inside
