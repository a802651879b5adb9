"""Equal shares of the jobs, for machines that know nothing of each other but a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stylecap.errors import OptionError

Shard = tuple[int, int]
WHOLE: Shard = (1, 1)


def parse_shard(text: str) -> Shard:
    """Read ``i/n``: the i-th, from 1, of n shares.

    Raises:
        OptionError: it is not of that form, or i is not among 1 to n.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise OptionError(f"shard: expected i/n with i from 1 to n, such as 1/4, got {text!r}")
    return int(found[1]), int(found[2])


def shard_from(environment: Mapping[str, str]) -> tuple[Shard, str]:
    """The share that a launcher gives this process, and the variables that say so.

    ``RANK`` and ``WORLD_SIZE`` as torchrun sets them, or those of a Slurm array: its tasks
    count from ``MIN`` in steps of ``STEP``.

    Args:
        environment: variables by name.
    Returns:
        The share, and the names and values it comes from; `WHOLE` and ``""`` without any.
    Raises:
        OptionError: the variables are there but give no equal shares.
    """
    for names, read in (
        (("RANK", "WORLD_SIZE"), _from_rank),
        (
            (
                "SLURM_ARRAY_TASK_ID",
                "SLURM_ARRAY_TASK_MIN",
                "SLURM_ARRAY_TASK_MAX",
                "SLURM_ARRAY_TASK_STEP",
            ),
            _from_array,
        ),
    ):
        if names[0] not in environment or (names[0] == "RANK" and names[1] not in environment):
            continue
        source = ", ".join(f"{name}={environment[name]}" for name in names if name in environment)
        try:
            index, count = read(*(int(environment[name]) for name in names))
            tasks = int(environment.get("SLURM_ARRAY_TASK_COUNT", count))
            if names[0] != "RANK" and tasks != count:  # some of them are left out
                index = 0
        except (KeyError, ValueError):
            index, count = 0, 0
        if not 1 <= index <= count:
            raise OptionError(f"shard: {source} give no equal shares; say --shard i/n yourself")
        return (index, count), source
    return WHOLE, ""


def _from_rank(rank: int, size: int) -> Shard:
    return rank + 1, size


def _from_array(task: int, first: int, last: int, step: int) -> Shard:
    place, rest = divmod(task - first, step) if step > 0 else (0, 1)
    return (0, 0) if rest else (place + 1, (last - first) // step + 1)
