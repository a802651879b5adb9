"""What it would bring to choose among the beam's sentences anew: CIDEr-D on Flickr8k's dev split.

    python benchmarks/reranking.py flickr8k --cache CACHE

The beam ranks sentences by log-probability over length. Two judges are added to that, with several
weights: `consensus`, CIDEr-D of a sentence against the others of the beam (Kumar & Byrne 2004,
"Minimum Bayes-Risk Decoding"), and `search`, its cosine with the picture in the space of the
search by words. As everywhere, the first half of the pictures may choose, the second reports.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stylecap.backbone import load_backbone
from stylecap.captioning.captioner import load_captioner
from stylecap.captioning.data import read_captions
from stylecap.captioning.features import FeatureCache
from stylecap.captioning.metrics import CiderD
from stylecap.captioning.options import CaptionOptions
from stylecap.captioning.vocabulary import words_of
from stylecap.studio.embedding import SEARCH_VIEW, load_word_search, summaries

WEIGHTS = (0.0, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
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
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 10])
    arguments = parser.parse_args()

    pictures = [each for each in read_captions(arguments.data) if each.split == "dev"]
    backbone, search = load_backbone(SEARCH_VIEW.backbone), load_word_search()
    captioner = load_captioner(SEARCH_VIEW.backbone, runtime=backbone.runtime)
    paths = [each.path for each in pictures]
    features = FeatureCache(arguments.cache).features(backbone, SEARCH_VIEW, paths)
    if features is None:
        raise SystemExit("the features were not finished")
    # The captioner's one layer is the first of the search's three.
    seen = features[..., : captioner.decoders[0].shape.channels]
    points = search.pictures(summaries(features))  # (N, D)
    scorer = CiderD([each.captions for each in pictures])
    prepared = [scorer.prepare(each.captions) for each in pictures]

    print("| beam | judge | weight | dev | 1st half | 2nd half |\n|---|---|---|---|---|---|")
    for beam in arguments.beams:
        options = CaptionOptions(beam=beam, alternatives=beam)
        found = []
        for start in range(0, len(seen), BATCH):
            chunk = torch.from_numpy(np.array(seen[start : start + BATCH]))
            found += captioner.describe(chunk, options)
        sentences = [[words_of(text) for text, _ in each.alternatives] for each in found]
        scores = [
            [scorer.score(words, group) for words in each]
            for each, group in zip(sentences, prepared, strict=True)
        ]
        ranks = [
            [
                log_prob / (len(words) + 1) ** captioner.length_penalty
                for words, (_, log_prob) in zip(each, caption.alternatives, strict=True)
            ]
            for each, caption in zip(sentences, found, strict=True)
        ]
        judges = {
            "consensus": [consensus(each, scorer) for each in sentences],
            "search": [
                (search.sentences(each) @ point).tolist()
                for each, point in zip(sentences, points, strict=True)
            ],
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
