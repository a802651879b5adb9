"""`stylecap evaluate-search`: how well pictures and sentences find each other."""

from __future__ import annotations

import argparse

from stylecap.cli.flags import add_runtime
from stylecap.cli.index import add_matcher
from stylecap.cli.search import add_rerank
from stylecap.cli.terminal import INTERRUPTED, Display, Interruption, one_line, say, table
from stylecap.cli.train_search import add_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add_data(parser, required=True)
    parser.add_argument(
        "--split",
        metavar="NAME",
        default="dev",
        choices=("train", "dev", "test"),
        help="train, dev or test (default dev)",
    )
    add_matcher(parser)
    add_rerank(parser, weight="chosen on every second picture, the first half")
    add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--quiet", action="store_true", help="say nothing but figures and errors")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 130 if it was interrupted."""
    from stylecap.backbone import load_backbone
    from stylecap.captioning.captioner_file import load_captioner
    from stylecap.captioning.matching import SEARCH, load_matcher
    from stylecap.runtime import Runtime
    from stylecap.studio.retrieval import evaluate_search

    search = load_matcher(arguments.matcher or SEARCH)
    runtime = Runtime.choose(arguments.device, arguments.precision)
    captioner = None
    if arguments.rerank:
        captioner = load_captioner(search.view.backbone, runtime=runtime)
    with (
        Display(quiet=arguments.quiet) as display,
        Interruption(display, "the features so far are kept in --cache") as interruption,
    ):
        found = evaluate_search(
            search,
            arguments.data,
            arguments.split,
            captioner=captioner,
            candidates=arguments.candidates,
            weight=arguments.weight,
            pictures=arguments.pictures,
            cache=arguments.cache,
            backbone=load_backbone(search.view.backbone, runtime=runtime),
            on_progress=display,
            should_stop=interruption,
        )
    if found is None:
        return INTERRUPTED
    if arguments.json:
        say(found.to_json())
        return 0
    rows = [
        (name, kind, *(f"{value:.1f}" for value in (*each.image_to_text, *each.text_to_image)))
        for kind, side in (("embedding", found.plain), ("reranked", found.reranked or {}))
        for name, each in side.items()
    ]
    head = ("pictures", "by", *(f"{way} R@{k}" for way in ("text", "image") for k in (1, 5, 10)))
    say(table(head, rows, right=range(2, len(head))))
    if found.reranked and not arguments.quiet:
        where = "chosen on the first half" if found.tried else "as given"
        say(
            one_line(
                f"text R@K: a picture asks for its sentences; reranked: the {found.candidates} "
                f"nearest, with weights {found.weights[0]:g} (text) and {found.weights[1]:g} "
                f"(image), {where}"
            )
        )
    return 0
