"""What a second judge of the beam's sentences would bring: CIDEr-D on Flickr8k's dev split.

    python benchmarks/expected_ngrams.py flickr8k --cache CACHE [--beam 20]

The judge expects n-grams: kernel ridge regression from the `summary` of a picture to the mean
TF-IDF of what people wrote, on all training pictures and their mirror images. A sentence is worth
the product of its own TF-IDF, of unit length, with what is expected. It is added to what the beam
and the captioner's matcher say. It is not part of the captioners; this measures whether it should
be. It needs some 8 GB of memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylecap.backbone import load_backbone
from stylecap.captioning.captioner import load_captioner
from stylecap.captioning.data import CaptionedPicture, read_captions
from stylecap.captioning.features import FeatureCache
from stylecap.captioning.matching import summaries
from stylecap.captioning.metrics import CiderD, NGram, Words
from stylecap.captioning.options import CaptionOptions

BATCH = 20


def unit_tfidf(scorer: CiderD, words: Words) -> dict[NGram, float]:
    """TF-IDF of a sentence, of unit length for each length of n-grams."""
    vector = scorer.prepare([words])[0]
    return {
        gram: weight / norm
        for weights, norm in zip(vector.weights, vector.norms, strict=True)
        if norm > 0
        for gram, weight in weights.items()
    }


def expect(known: Tensor, targets: Tensor, asked: Tensor, *, width: float, ridge: float) -> Tensor:
    """Kernel ridge regression with a Gaussian kernel; Saunders et al. 1998.

    Args:
        known: (N, D) of unit length.
        targets: (N, G) what belongs to them.
        asked: (M, D) of unit length.
        width: the kernel is exp(-d²/width) of the distance d.
        ridge: added to the kernel's diagonal, as a share of its mean after centring.
    Returns:
        (M, G).
    """
    gram = torch.exp((known @ known.mT - 1) * (2 / width))  # (N, N)
    across = torch.exp((asked @ known.mT - 1) * (2 / width))  # (M, N)
    mean = gram.mean(0)
    across += mean.mean() - across.mean(1, keepdim=True) - mean
    gram += mean.mean() - mean[:, None] - mean
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    weights = torch.cholesky_solve(across.mT, torch.linalg.cholesky(gram)).mT  # (M, N)
    return (weights + 1 / len(known)) @ targets


def directions(found: Sequence[Tensor]) -> list[Tensor]:
    """Summaries, the training pictures' first, of unit length after standardising by these."""
    mean, spread = found[0].mean(0), found[0].std(0).clamp_min(1e-3)
    return [F.normalize((each - mean) / spread, dim=1) for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Flickr8k")
    parser.add_argument("--cache", type=Path, required=True, help="folder for features")
    parser.add_argument("--captioner", default="vgg16", help="one with a matcher")
    parser.add_argument("--beam", type=int, default=20)
    parser.add_argument("--width", type=float, default=2.0, help="of the kernel")
    parser.add_argument("--ridge", type=float, default=0.1)
    arguments = parser.parse_args()

    captioner = load_captioner(arguments.captioner)
    backbone = load_backbone(captioner.backbone_name)
    pictures = read_captions(arguments.data)

    def seen(split: str, mirrored: bool = False) -> tuple[list[CaptionedPicture], np.ndarray]:
        chosen = [each for each in pictures if each.split == split]
        features = FeatureCache(arguments.cache).features(
            backbone, captioner.view, [each.path for each in chosen], mirrored=mirrored
        )
        assert features is not None  # nobody stops it
        return chosen, features

    training, plain = seen("train")
    _, flipped = seen("train", mirrored=True)
    dev, features = seen("dev")
    known, mirrored, asked = directions([summaries(each) for each in (plain, flipped, features)])
    found = [
        candidates
        for start in range(0, len(features), BATCH)
        for candidates in captioner.candidates(
            torch.from_numpy(np.array(features[start : start + BATCH])),
            CaptionOptions(beam=arguments.beam),
        )
    ]
    texts = [[captioner.vocabulary.decode(c.sentence.tokens) for c in each] for each in found]
    scorer = CiderD([each.captions for each in dev])
    scores = [
        [scorer.score(words, group) for words in some]
        for some, group in zip(texts, (scorer.prepare(each.captions) for each in dev), strict=True)
    ]

    learnt = CiderD([each.captions for each in training])
    own = [[unit_tfidf(learnt, words) for words in some] for some in texts]
    place: dict[NGram, int] = {}
    for vector in (vector for some in own for vector in some):
        for gram in vector:
            place.setdefault(gram, len(place))
    targets = torch.zeros(len(training), len(place))
    for row, each in enumerate(training):
        for words in each.captions:
            for gram, weight in unit_tfidf(learnt, words).items():
                if gram in place:
                    targets[row, place[gram]] += 2.5 * weight / len(each.captions)
    expected = expect(
        torch.cat([known, mirrored]),
        torch.cat([targets, targets]),
        asked,
        width=arguments.width,
        ridge=arguments.ridge,
    ).numpy()
    judged = [
        [sum(weight * row[place[gram]] for gram, weight in vector.items()) for vector in some]
        for some, row in zip(own, expected, strict=True)
    ]

    counts = np.cumsum([0, *map(len, texts)])
    rank = np.array([each.sentence.score for some in found for each in some])
    match = np.array([each.match for some in found for each in some])
    extra, score = np.concatenate(judged), np.concatenate(scores)
    print("| match weight | weight of n-grams | dev | 1st half | 2nd half |\n|---|---|---|---|---|")
    for match_weight in (0, 2, 4, 6):
        for weight in (0, 1, 2, 3, 4, 6):
            total = rank + match_weight * match + weight * extra
            best = score[[a + int(np.argmax(total[a:b])) for a, b in pairwise(counts)]]
            cells = [f"{100 * part.mean():.1f}" for part in (best, best[::2], best[1::2])]
            print(f"| {match_weight} | {weight} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
