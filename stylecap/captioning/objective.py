"""What a decoder is trained to do: predict people's words, then earn CIDEr-D."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylecap.captioning.decode import Rules, State, sample
from stylecap.captioning.metrics import CiderD
from stylecap.captioning.model import CaptionDecoder, Scene
from stylecap.captioning.vocabulary import BOS, EOS, FIRST_PREDICTED, PAD, UNK, mirrored_words

#: Rewards (B, N) of captions drawn for B pictures, N each, as ids without ``<eos>``.
Judge = Callable[[list[list[tuple[int, ...]]]], Tensor]


class CaptionLoss(nn.Module):
    """Both objectives, summed over words; a module so that gradients can be shared by DDP.

    Args:
        decoder: to be trained.
        label_smoothing: probability that cross-entropy gives to all other words.
        samples: captions drawn for a picture.
        top_k: words among which each is drawn; 0 for all. After label smoothing the tail is
            noise, and drawing from it teaches to stop early rather than to describe.
        max_words: longest caption drawn.
    """

    def __init__(
        self,
        decoder: CaptionDecoder,
        *,
        label_smoothing: float = 0.0,
        samples: int = 5,
        top_k: int = 0,
        max_words: int = 20,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.label_smoothing = label_smoothing
        self.samples, self.top_k = samples, top_k
        self.rules = Rules(BOS, EOS, banned=(UNK,), max_words=max_words, no_repeat=0)

    def forward(
        self, features: Tensor, tokens: Tensor | None = None, judge: Judge | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of given captions, or of captions drawn here and judged.

        Args:
            features: (B, P, C).
            tokens: (B, N, T+1) ids, ``<bos>`` first, ``<pad>`` behind the end.
            judge: of captions, used where no tokens are given.
        Returns:
            The loss summed over words, how many words, and the reward summed over pictures
            (the mean of each one's captions; 0 without a judge).
        Raises:
            ValueError: neither tokens nor a judge is given.
        """
        scene = self.decoder.look(features)
        if tokens is not None:
            return self._cross_entropy(scene, tokens)
        if judge is None:
            raise ValueError("tokens: expected captions, or a judge to draw them for; got neither")
        return self._policy_gradient(scene, judge)

    def _cross_entropy(self, scene: Scene, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        targets = tokens[..., 1:]  # (B, N, T)
        counts = targets != PAD
        output, _ = self.decoder(scene, tokens[..., :-1])  # (B, N, T, D)
        logits = self.decoder.logits(output[counts]).float()  # (M, V-2)
        wanted = targets[counts] - FIRST_PREDICTED  # (M,)
        loss = F.cross_entropy(
            logits, wanted, label_smoothing=self.label_smoothing, reduction="sum"
        )
        return loss, counts.sum(), loss.new_zeros(())

    def _policy_gradient(self, scene: Scene, judge: Judge) -> tuple[Tensor, Tensor, Tensor]:
        """Minus the sum of advantage times log-probability (REINFORCE).

        The captions come from the very network whose gradient is taken, its dropout included:
        without dropout it learns the training pictures by heart, and with other units dropped
        than those that drew the captions it drifts apart.

        Source: Rennie et al. 2017, "Self-critical Sequence Training"; the baseline is the mean
        of a picture's other samples (Luo 2020, "A Better Variant of Self-Critical Sequence
        Training").
        """
        images = len(scene.glance)
        told: list[tuple[Tensor, Tensor]] = []  # (R,) rows that go on, (R, V) of them

        def begin(rows: int) -> State:
            state = self.decoder.begin(scene, rows // images)
            return {**state, "row": torch.arange(rows, device=scene.glance.device)}

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            log_probs, state = self.decoder.step(scene, tokens, state)
            told.append((state["row"], log_probs))
            return log_probs, state

        drawn = sample(begin, step, images, self.rules, count=self.samples, top_k=self.top_k)
        captions = [[sentence.tokens for sentence in each] for each in drawn]
        rewards = judge(captions)  # (B, N)
        advantage = (rewards - rewards.mean(1, keepdim=True)) * self.samples / (self.samples - 1)
        targets = pad_tokens(captions, self.rules.max_words)[..., 1:].flatten(0, 1)  # (B*N, T)
        targets = targets.to(scene.glance.device)
        counts = targets != PAD
        weights = advantage.to(scene.glance).flatten()  # (B*N,)
        loss = scene.glance.new_zeros(())
        # The end of a caption that was cut was not drawn.
        steps = zip(told[: self.rules.max_words], targets.mT, strict=False)
        for place, ((row, log_probs), words) in enumerate(steps):
            chosen = log_probs.gather(1, words[row, None]).squeeze(1)  # (R,)
            loss = loss - ((chosen - self._log_share(log_probs, place)) * weights[row]).sum()
        return loss, counts.sum(), rewards.mean(1).sum().to(loss)

    def _log_share(self, log_probs: Tensor, place: int) -> Tensor:
        """(R, V) to (R,): of the words that are drawn among at a place, the whole probability.

        What is drawn is their distribution, so it is theirs whose gradient is taken: with that
        of all words, captions that earn little would raise the words that are never drawn.
        """
        never = [*self.rules.banned, *([self.rules.eos] if place < self.rules.min_words else ())]
        possible = torch.ones(log_probs.shape[1], dtype=torch.bool, device=log_probs.device)
        possible[never] = False
        drawn_among = log_probs.where(possible, -math.inf)  # (R, V)
        if self.top_k:
            drawn_among = drawn_among.topk(min(self.top_k, log_probs.shape[1])).values  # (R, K)
        return drawn_among.logsumexp(1)


class CiderJudge:
    """CIDEr-D of captions against those of the training pictures, ``<eos>`` being a word.

    Document frequencies come from the training pictures. Without the end as a word, captions
    that break off would be as good as whole ones.
    """

    def __init__(self, captions: Sequence[Sequence[Sequence[str]]]) -> None:
        ended = [[[*words, "<eos>"] for words in each] for each in captions]
        self._scorer = CiderD(ended)
        self._plain = [self._scorer.prepare(each) for each in ended]
        swapped = [[mirrored_words(words) for words in each] for each in ended]
        self._mirrored = [
            self._scorer.prepare(other) if other != each else plain
            for each, other, plain in zip(ended, swapped, self._plain, strict=True)
        ]

    def __call__(self, words: list[str], ended: bool, index: int, mirrored: bool) -> float:
        """Reward of one caption.

        Args:
            words: without ``<eos>``.
            ended: it came to its end, and was not cut.
            index: of its picture.
            mirrored: the picture was mirrored.
        """
        references = (self._mirrored if mirrored else self._plain)[index]
        return self._scorer.score([*words, "<eos>"] if ended else words, references)


def pad_tokens(captions: Sequence[Sequence[Sequence[int]]], max_words: int) -> Tensor:
    """Captions of B pictures to (B, N, T+1) ids, with ``<bos>``, ``<eos>`` and ``<pad>``.

    Pictures with fewer captions than others get empty rows, all ``<pad>`` behind ``<bos>``.
    Captions longer than ``max_words`` are cut, and have no ``<eos>`` then.
    """
    rows = [
        [list(words[:max_words]) if len(words) > max_words else [*words, EOS] for words in each]
        for each in captions
    ]
    count = max(len(row) for row in rows)
    length = max((len(words) for row in rows for words in row), default=0)
    tokens = torch.full((len(rows), count, length + 1), PAD)
    tokens[..., 0] = BOS
    for i, row in enumerate(rows):
        for j, words in enumerate(row):
            tokens[i, j, 1 : len(words) + 1] = torch.tensor(words, dtype=torch.long)
    return tokens
