"""Painters as actors of a Ray cluster; needs the extra ``stylecap[ray]``.

Every machine of the cluster has stylecap installed and sees the contents, the styles and the
output folder under the same paths.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from importlib import import_module
from typing import Any

from stylecap.batch.executors import Group, Report, Waiting
from stylecap.batch.painter import Outcome, Painter, PainterSettings, Task
from stylecap.errors import DeviceError, OptionError
from stylecap.progress import Progress, ShouldStop

_LOOK_SECONDS = 0.5


class RayCluster:
    """Actors that hold one painter each; one that dies is replaced, and its task tried again."""

    def __init__(
        self, settings: PainterSettings, workers: int | None, address: str, retries: int
    ) -> None:
        """Connect.

        Args:
            settings: the same for each painter.
            workers: actors; one for each GPU of the cluster, or each CPU, if None.
            address: of the cluster; "" starts one on this machine.
            retries: how often a task is tried again after its actor died.
        Raises:
            OptionError: Ray is not installed.
            DeviceError: there is no cluster at the address.
        """
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise OptionError(
                "executor: ray is not installed; pip install 'stylecap[ray]'"
            ) from None
        self._ray = ray
        self._started = not ray.is_initialized()
        try:
            if self._started:
                ray.init(
                    address=address or "local",
                    logging_level="warning",
                    log_to_driver=False,
                    include_dashboard=False if not address else None,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DeviceError(
                f"ray_address: no cluster answers at {address!r} ({error}); "
                "start one with 'ray start --head'"
            ) from error
        cluster = ray.cluster_resources()
        gpus = int(cluster.get("GPU", 0))
        self.on_gpu = gpus > 0
        self.workers = workers or max(1, gpus or int(cluster.get("CPU", 1)))
        self._needs = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "max_concurrency": 2}
        self._settings = settings
        self._retries = retries

    def paint(
        self, groups: Iterable[Group], report: Report, should_stop: ShouldStop
    ) -> Generator[Outcome]:
        """As `stylecap.batch.executors.Executor.paint`; progress is not reported."""
        ray = self._ray
        waiting = Waiting(groups, self._retries)
        idle: list[tuple[int, Any]] = [(n, self._actor()) for n in reversed(range(self.workers))]
        busy: dict[Any, tuple[Group, int, Any]] = {}
        stopping = False
        try:
            while True:
                if not stopping and should_stop():
                    stopping = True
                    for _, _, actor in busy.values():
                        actor.stop.remote()
                while idle and not stopping and (group := waiting.next()) is not None:
                    number, actor = idle.pop()
                    for task in group:
                        report(task, number, None)
                    busy[actor.paint.remote(group)] = (group, number, actor)
                if not busy:
                    return
                ready, _ = ray.wait(list(busy), timeout=_LOOK_SECONDS)
                for reference in ready:
                    group, number, actor = busy.pop(reference)
                    try:
                        ended = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        actor = self._actor()
                        ended = waiting.again(group, type(error).__name__)
                    idle.append((number, actor))
                    yield from ended
        finally:
            for _, actor in (*idle, *((n, a) for _, n, a in busy.values())):
                ray.kill(actor)
            if self._started:
                ray.shutdown()

    def _actor(self) -> Any:
        return self._ray.remote(**self._needs)(_Actor).remote(self._settings, os.getcwd())


class _Actor:
    """A painter that can be asked to stop while it paints."""

    def __init__(self, settings: PainterSettings, folder: str) -> None:
        os.chdir(folder)  # the driver's, from which jobs name their files
        self._painter = Painter(settings)
        self._stop = False

    def paint(self, group: Group) -> list[Outcome]:
        return list(self._painter.paint(group, _silent, lambda: self._stop))

    def stop(self) -> None:
        self._stop = True


def _silent(task: Task, progress: Progress) -> None:
    """Progress would cost a message a step."""
