"""What choosing among the beam's sentences brings: CIDEr-D on Flickr8k's dev split.

    python benchmarks/reranking.py flickr8k --cache CACHE [--captioner FILE] [--length-penalty 1]

The beam ranks sentences by log-probability over length. Two judges are added to that, with several
weights: `match`, how near the captioner's matcher finds sentence and picture, and `consensus`,
CIDEr-D of a sentence against the others of the beam (Kumar & Byrne 2004, "Minimum Bayes-Risk
Decoding"), not the captioner's own consensus, which is not asked. As everywhere, the first half
of the pictures may choose, the second reports.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stylecap.captioning.captioner_file import load_captioner
from stylecap.captioning.evaluation import see_split
from stylecap.captioning.metrics import CiderD
from stylecap.captioning.options import CaptionOptions

WEIGHTS = (0.0, 0.1, 0.3, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
BATCH = 20


def consensus(sentences: Sequence[Sequence[str]], scorer: CiderD) -> list[float]:
    """CIDEr-D of each sentence against the others."""
    return [
        scorer.score(words, scorer.prepare([*sentences[:place], *sentences[place + 1 :]]))
        for place, words in enumerate(sentences)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Flickr8k")
    parser.add_argument("--cache", type=Path, required=True, help="folder for features")
    parser.add_argument("--captioner", default="vgg16", help="one with a matcher")
    parser.add_argument("--length-penalty", type=float, help="default the captioner's own")
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 10])
    arguments = parser.parse_args()

    captioner = load_captioner(arguments.captioner)
    seen = see_split(captioner, arguments.data, "dev", cache=arguments.cache)
    if seen is None:
        raise SystemExit("the features were not finished")
    scorer = CiderD([each.captions for each in seen.pictures])
    prepared = [scorer.prepare(each.captions) for each in seen.pictures]

    print("| beam | judge | weight | dev | 1st half | 2nd half |\n|---|---|---|---|---|---|")
    for beam in arguments.beams:
        found = [
            candidates
            for start in range(0, len(seen.features), BATCH)
            for candidates in captioner.candidates(
                torch.from_numpy(np.array(seen.features[start : start + BATCH])),
                CaptionOptions(
                    beam=beam, length_penalty=arguments.length_penalty, consensus_weight=0.0
                ),
            )
        ]
        sentences = [
            [captioner.vocabulary.decode(each.sentence.tokens) for each in some] for some in found
        ]
        scores = [
            [scorer.score(words, group) for words in each]
            for each, group in zip(sentences, prepared, strict=True)
        ]
        ranks = [[each.sentence.score for each in some] for some in found]
        judges = {
            "match": [[each.match for each in some] for some in found],
            "consensus": [consensus(each, scorer) for each in sentences],
        }
        for judge, judged in judges.items():
            for weight in WEIGHTS:
                chosen = np.array(
                    [
                        score[int(np.argmax(np.array(rank) + weight * np.array(extra)))]
                        for score, rank, extra in zip(scores, ranks, judged, strict=True)
                    ]
                )
                cells = [f"{100 * part.mean():.1f}" for part in (chosen, chosen[::2], chosen[1::2])]
                print(f"| {beam} | {judge} | {weight:g} | {' | '.join(cells)} |")
        best = np.mean([max(score) for score in scores])
        print(f"| {beam} | the best of each beam | | {100 * best:.1f} | | |", flush=True)


if __name__ == "__main__":
    main()
