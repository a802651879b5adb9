"""What several paintings share: computed for the first of them, remembered for the others."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class StyleCache:
    """Style images and their Gram matrices, for one painting after the other with equal styles.

    Keys hold hashes of what the values are made from, so that a file that changed is read anew.
    Threads may share it; two that ask for the same at once may both compute it.
    """

    def __init__(self, limit_bytes: int = 512 * 2**20) -> None:
        """Start empty.

        Args:
            limit_bytes: kept at most, besides the youngest value; the least recently used
                values are forgotten first.
        """
        self._limit = limit_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, a tensor or a mapping of tensors, made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                found: Value = self._values[key][0]
                return found
        value = make()
        tensors = value.values() if isinstance(value, Mapping) else [value]
        size = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
        with self._lock:
            if key not in self._values:
                self._values[key] = (value, size)
                self._bytes += size
            while self._bytes > self._limit and len(self._values) > 1:
                self._bytes -= self._values.popitem(last=False)[1][1]
        return value


def image_sha256(image: Tensor) -> str:
    """Identity of an image's size and values, in hexadecimal."""
    values = image.detach().cpu().contiguous().numpy()
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()
