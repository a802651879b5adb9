"""`stylecap train-captioner`: teach a captioner from captioned pictures, or join several."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from stylecap.captioning.options import TrainOptions
from stylecap.cli.flags import add_options, add_runtime, read_options
from stylecap.cli.terminal import INTERRUPTED, Display, Interruption, one_line, say
from stylecap.errors import DeviceError, OptionError, OutputError
from stylecap.progress import OnProgress, Progress

if TYPE_CHECKING:
    from stylecap.captioning.captioner import Captioner

_PATIENCE = timedelta(days=7)  # processes wait for the one that computes features


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = (
        "%(prog)s --data PATH [PATH ...] -o FOLDER [--matcher FILE] [options]\n"
        "       %(prog)s --ensemble FILE [FILE ...] -o FILE [--data PATH ... [--matcher FILE]]"
    )
    add_data(parser, required=False)
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        type=Path,
        required=True,
        help="folder for captioner, log, curves and checkpoint; the same command goes on where "
        "it was interrupted. With --ensemble, the file to write",
    )
    parser.add_argument(
        "--ensemble",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="train no decoder: join those of these captioners of the same data into one that asks "
        "all of them. With --data, also for a single one, what follows a training: what people "
        "write is learned, and the search is chosen",
    )
    parser.add_argument(
        "--matcher",
        metavar="FILE",
        type=Path,
        help="what `stylecap train-search` of the same backbone made, to be asked which of the "
        "beam's sentences fits the picture; becomes part of the captioner, also of one whose "
        "training is over. With --ensemble a single file's own one is kept, several files' are "
        "left out",
    )
    add_options(parser, TrainOptions)
    add_runtime(parser, precision=False)
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def add_data(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add ``--data``, ``--pictures`` and ``--cache``."""
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        nargs="+",
        required=required,
        help="captions: the folder of Flickr8k, Karpathy's dataset_*.json, COCO's "
        "captions_*.json (both splits), or a CSV with the columns picture, caption and "
        "perhaps split (train, dev, test)",
    )
    parser.add_argument(
        "--pictures",
        metavar="DIR",
        type=Path,
        help="folder of the pictures, if they do not lie beside the captions",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="folder that keeps the pictures' features from run to run",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 130 if it was interrupted, with the checkpoint saved."""
    options = read_options(arguments, TrainOptions)
    if not arguments.data and arguments.matcher is not None:
        raise OptionError("--matcher needs --data to choose its weight; give both")
    if arguments.ensemble is not None:
        if len(arguments.ensemble) == 1 and not arguments.data:
            raise OptionError(
                "--ensemble of one captioner joins nothing; name more, or give --data"
            )
        return _join(arguments)
    if not arguments.data:
        raise OptionError("--data: expected captioned pictures to learn from; see --help")
    from stylecap.captioning.matching import load_matcher
    from stylecap.captioning.recipe import CAPTIONER, train_captioner

    matcher = None if arguments.matcher is None else load_matcher(arguments.matcher)

    with _process_group(arguments.device) as (rank, device):
        quiet = arguments.quiet or rank > 0
        with (
            Display(quiet=quiet) as display,
            Interruption(display, "after saving the checkpoint") as interruption,
        ):
            captioner = train_captioner(
                arguments.data,
                arguments.output,
                options,
                pictures=arguments.pictures,
                cache=arguments.cache,
                device=device,
                matcher=matcher,
                on_progress=_telling(display),
                should_stop=interruption,
            )
        if captioner is None:
            if not quiet:
                say("stopped; the same command goes on from here")
            return INTERRUPTED
        if not quiet:
            _report(captioner, arguments.output / CAPTIONER)
    return 0


def _telling(display: Display) -> OnProgress:
    """Show progress; messages say which pass they are about."""

    def tell(progress: Progress) -> None:
        if progress.message:
            progress = replace(progress, message=f"{progress.stage}: {progress.message}")
        display(progress)

    return tell


def _join(arguments: argparse.Namespace) -> int:
    from stylecap.captioning.captioner_file import load_captioner, save_captioner
    from stylecap.captioning.matching import load_matcher
    from stylecap.captioning.recipe import finish_captioner, join_captioners
    from stylecap.runtime import Runtime

    if not arguments.output.parent.is_dir():
        raise OutputError(f"{arguments.output}: the folder does not exist; make it first")
    runtime = Runtime.choose(arguments.device)
    captioner: Captioner | None = join_captioners(
        [load_captioner(path, runtime=runtime) for path in arguments.ensemble]
    )
    assert captioner is not None
    if arguments.data:
        with (
            Display(quiet=arguments.quiet) as display,
            Interruption(display, "no captioner is written") as interruption,
        ):
            captioner = finish_captioner(
                captioner,
                arguments.data,
                pictures=arguments.pictures,
                cache=arguments.cache,
                matcher=None if arguments.matcher is None else load_matcher(arguments.matcher),
                on_progress=display,
                should_stop=interruption,
            )
        if captioner is None:
            return INTERRUPTED
    save_captioner(captioner, arguments.output)
    if not arguments.quiet:
        _report(captioner, arguments.output)
    return 0


def _report(captioner: Captioner, path: Path) -> None:
    search = captioner.record.get("search")
    scored = ""
    if search is not None:
        scored = (
            f", CIDEr-D {100 * search['best']['cider']:.1f} on the {search['pictures']} pictures "
            "that chose it"
        )
    size = path.stat().st_size / 1e6
    weights = {"match": captioner.match_weight, "consensus": captioner.consensus_weight}
    judged = "".join(f", {name} weight {weight:g}" for name, weight in weights.items() if weight)
    say(
        one_line(
            f"{path}: {len(captioner.vocabulary)} words, beam {captioner.beam}, length penalty "
            f"{captioner.length_penalty:g}{judged}, {size:.1f} MB{scored}"
        )
    )


@contextmanager
def _process_group(device: str) -> Iterator[tuple[int, str]]:
    """Join the processes that ``torchrun`` started, if it did.

    Yields:
        This process's rank and device.
    """
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        yield 0, device
        return
    import torch
    import torch.distributed as dist

    from stylecap.runtime import available_devices

    if device == "auto":
        device = available_devices()[0]
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"torchrun: the processes cannot join ({error})") from error
    try:
        yield dist.get_rank(), device
    finally:
        dist.destroy_process_group()
