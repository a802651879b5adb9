"""Train a decoder: cross-entropy first, then CIDEr-D as reward, then the mean of both ends.

One process, or several under ``torchrun``: each takes its part of every step's pictures, and
gradients are weighted by words, so that the result is that of one process up to rounding; but
for dropout and drawn captions, of which each process has its own.
Random numbers are drawn anew for every step from the seed, the step and the process's rank, so
that a run that was killed and goes on from its checkpoint ends as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylecap.captioning.decode import Rules, beam_search
from stylecap.captioning.learner import Learner
from stylecap.captioning.metrics import CiderD, bleu, rouge_l
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.objective import CiderJudge, Judge, pad_tokens
from stylecap.captioning.options import TrainOptions
from stylecap.captioning.run_folder import PHASES, Position, RunFolder, Scores
from stylecap.captioning.vocabulary import (
    BOS,
    EOS,
    UNK,
    Vocabulary,
    mirrored_words,
)
from stylecap.errors import InputError
from stylecap.progress import OnProgress, Progress, ShouldStop

#: How much the weights after the rewards count in the means that are tried; the rest is of those
#: before.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Corpus:
    """Pictures as features, with what people wrote about them.

    Attributes:
        features: (N, P, C) of the pictures, float16 and possibly memory-mapped.
        captions: for each picture its captions, each a list of words.
        mirrored: (N, P, C) of the mirrored pictures, or None.
    """

    features: np.ndarray
    captions: Sequence[Sequence[Sequence[str]]]
    mirrored: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that pictures and captions belong together."""
        if self.features.ndim != 3 or len(self.features) != len(self.captions):
            raise InputError(
                f"corpus: expected features (N, P, C) for {len(self.captions)} pictures, got "
                f"{tuple(self.features.shape)}"
            )
        if self.mirrored is not None and self.mirrored.shape != self.features.shape:
            raise InputError(
                f"corpus: mirrored features are {self.mirrored.shape}, the others "
                f"{self.features.shape}; expected the same"
            )
        if not len(self.captions) or not all(self.captions):
            raise InputError("corpus: expected at least one picture, and a caption for each")


@dataclass(frozen=True)
class Trained:
    """The outcome of a training run.

    Attributes:
        decoder: with the averaged weights that scored best.
        vocabulary: its words.
        history: all validations.
        finished: False if it was stopped before its end; it can be continued.
    """

    decoder: CaptionDecoder
    vocabulary: Vocabulary
    history: tuple[Scores, ...]
    finished: bool


def describe_features(
    decoder: CaptionDecoder,
    vocabulary: Vocabulary,
    features: np.ndarray | Tensor,
    *,
    beam: int = 3,
    length_penalty: float = 0.7,
    max_words: int = 24,
    batch: int = 50,
) -> list[list[str]]:
    """The best caption, as words, for each of (N, P, C) features."""
    was_training = decoder.training
    decoder.eval()
    device = decoder.output_bias.device
    rules = Rules(BOS, EOS, banned=(UNK,), max_words=max_words)
    described = []
    with torch.inference_mode():
        for start in range(0, len(features), batch):
            chunk = torch.as_tensor(features[start : start + batch]).to(device).float()
            scene = decoder.look(chunk)

            def begin(rows: int, scene: Any = scene, images: int = len(chunk)) -> Any:
                return decoder.begin(scene, rows // images)

            def step(tokens: Tensor, state: Any, scene: Any = scene) -> Any:
                return decoder.step(scene, tokens, state)

            found = beam_search(
                begin, step, len(chunk), rules, beam=beam, length_penalty=length_penalty
            )
            described += [vocabulary.decode(sentences[0].tokens) for sentences in found]
    decoder.train(was_training)
    return described


def train(
    training: Corpus,
    validation: Corpus,
    folder: Path,
    options: TrainOptions | None = None,
    *,
    frequencies: Sequence[Sequence[Sequence[str]]] | None = None,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Trained:
    """Train, validating after every pass; goes on where ``folder`` holds a checkpoint.

    Where there were rewards, the weights before and after them are averaged at last: they err in
    different directions, and one of the means is mostly better than both (Wortsman et al. 2022,
    "Robust fine-tuning of zero-shot models").

    Args:
        training: what to learn from.
        validation: what chooses the weights to keep.
        folder: for the checkpoint and the log; made if it is not there.
        options: of the training; default `TrainOptions()`.
        frequencies: references whose document frequencies the validation's CIDEr-D uses;
            default the validation's own.
        device: of the decoder.
        on_progress: told of every step, in the first process only.
        should_stop: asked before every step and mean; the run can be continued later.
    Raises:
        InputError: the folder's checkpoint belongs to other options or another corpus.
        OutputError: the folder cannot be written.
    """
    options = options or TrainOptions()
    return _Training(training, validation, Path(folder), options, frequencies, device).run(
        on_progress, should_stop
    )


class _Training:
    """One run: what learns, how far it is, and the steps between checkpoints."""

    def __init__(
        self,
        training: Corpus,
        validation: Corpus,
        folder: Path,
        options: TrainOptions,
        frequencies: Sequence[Sequence[Sequence[str]]] | None,
        device: str,
    ) -> None:
        self.training, self.validation, self.options = training, validation, options
        self.vocabulary = Vocabulary.build(
            (words for each in training.captions for words in each), options.min_count
        )
        positions, channels = training.features.shape[1:]
        shape = DecoderShape(
            words=len(self.vocabulary),
            channels=channels,
            positions=positions,
            kind=options.decoder,
            units=options.units,
            heads=options.heads,
            dropout=options.dropout,
            position_dropout=options.position_dropout,
        )
        self.learner = Learner(shape, options, device)
        self.folder = RunFolder(
            folder, options, self.vocabulary.words, shape, len(training.features)
        )
        self.at = Position()
        self.scorer = CiderD(frequencies or validation.captions)
        self.references = [self.scorer.prepare(each) for each in validation.captions]
        self.encoded = [
            [[self.vocabulary.encode(words) for words in each] for each in training.captions]
        ]
        if training.mirrored is not None and options.mirrored:
            self.encoded.append(
                [
                    [self.vocabulary.encode(mirrored_words(words)) for words in each]
                    for each in training.captions
                ]
            )
        self._judge: CiderJudge | None = None

    # the run

    def run(self, on_progress: OnProgress | None, should_stop: ShouldStop | None) -> Trained:
        self.folder.prepare()
        if (kept := self.folder.load()) is not None:
            self.at, tensors = kept
            self.learner.restore(tensors)
        began = time.monotonic() - self.at.seconds
        steps = sum(self._steps(phase) for phase in PHASES)
        if on_progress is None or self.learner.rank != 0:
            on_progress = _tell_nobody
        while self.at.phase in PHASES:
            phase, epochs = self.at.phase, self._epochs(self.at.phase)
            if self._over():
                self._next_phase()
                continue
            for indices, mirrored in self._batches():
                if self._asked_to(should_stop):
                    return self._trained(False)
                loss, count = self._step(indices, mirrored)
                self.at.loss_sum += loss
                self.at.loss_count += count
                self.at.batch += 1
                self.at.step += 1
                self.at.phase_step += 1
                self.at.seconds = time.monotonic() - began
                stage = f"{phase}, epoch {self.at.epoch + 1} of {epochs}"
                shown: float | None = loss / max(count, 1)
                if phase == "reward":
                    stage, shown = f"{stage}, CIDEr-D of drawn captions {shown:.3f}", None
                on_progress(Progress(self.at.step, steps, self.at.seconds, stage, shown))
                if self.at.step % self.options.save_every == 0:
                    self._save()
            if phase == "mean":
                if self._asked_to(should_stop):
                    return self._trained(False)
                self.learner.mix(SHARES[self.at.epoch])
            scores = self._validate()
            self.at.seconds = time.monotonic() - began
            self._record(scores)
            self._save()
            message = (
                f"CIDEr-D {100 * scores.cider:.1f}, BLEU-4 {100 * scores.bleu4:.1f}, "
                f"ROUGE-L {100 * scores.rouge_l:.1f}"
            )
            stage = f"{phase}, epoch {scores.epoch}"
            if phase == "mean":
                stage = f"mean, {SHARES[scores.epoch - 1]:.0%} from after the rewards"
            on_progress(Progress(self.at.step, steps, self.at.seconds, stage, message=message))
        return self._trained(True)

    def _save(self) -> None:
        if self.learner.rank == 0:
            self.folder.save(self.at, self.learner.tensors())

    def _asked_to(self, should_stop: ShouldStop | None) -> bool:
        """Whether any process is to stop; the checkpoint is written then."""
        if not self.learner.anyone(should_stop is not None and should_stop()):
            return False
        self._save()
        return True

    def _trained(self, finished: bool) -> Trained:
        decoder = self.learner.decoder_of(self.learner.best)
        history = tuple(Scores(**row) for row in self.at.history)
        return Trained(decoder, self.vocabulary, history, finished)

    def _epochs(self, phase: str) -> int:
        """Validations of a phase: one after every pass, and one of every mean."""
        means = len(SHARES) if self.options.reward_epochs or self.at.rewarded else 0
        passes = {"words": self.options.epochs, "reward": self.options.reward_epochs}
        return {**passes, "mean": means}[phase]

    def _batch(self, phase: str) -> int:
        return self.options.batch if phase == "words" else self.options.reward_batch

    def _steps(self, phase: str) -> int:
        if phase == "mean":
            return 0
        return self._epochs(phase) * math.ceil(len(self.training.features) / self._batch(phase))

    def _over(self) -> bool:
        """Whether the phase has come to its end."""
        tired = self.at.without_gain >= self.options.patience and self.at.phase != "mean"
        return tired or self.at.epoch >= self._epochs(self.at.phase)

    def _next_phase(self) -> None:
        order = PHASES.index(self.at.phase)
        self.at.phase = PHASES[order + 1] if order + 1 < len(PHASES) else "done"
        self.at.epoch = self.at.batch = self.at.phase_step = self.at.without_gain = 0
        self.at.best = -math.inf
        if self.at.phase == "reward":
            self.learner.restart()
        elif self.at.phase == "mean":
            self.learner.arrive()
        self._save()

    # one step

    def _batches(self) -> Iterator[tuple[list[int], list[bool]]]:
        """The rest of this epoch's steps: all pictures once, each mirrored or not."""
        if self.at.phase == "mean":
            return
        order = np.random.default_rng(
            (self.options.seed, PHASES.index(self.at.phase), self.at.epoch)
        )
        indices = order.permutation(len(self.training.features)).tolist()
        mirrored = (order.random(len(indices)) < 0.5).tolist()
        if len(self.encoded) == 1:
            mirrored = [False] * len(indices)
        batch = self._batch(self.at.phase)
        for start in range(self.at.batch * batch, len(indices), batch):
            chosen = slice(start + self.learner.rank, start + batch, self.learner.world)
            yield indices[: start + batch][chosen], mirrored[: start + batch][chosen]

    def _step(self, indices: list[int], mirrored: list[bool]) -> tuple[float, float]:
        """One update; the summed loss (or reward) of all processes and what it is summed over."""
        torch.manual_seed(_seed(self.options.seed, self.at.step, self.learner.rank))
        present = bool(indices)
        if not present:  # fewer pictures are left than processes
            indices, mirrored = [0], [False]
        pairs = list(zip(indices, mirrored, strict=True))
        tokens, judge = None, None
        if self.at.phase == "words":
            captions = [self.encoded[int(m)][i] for i, m in pairs]
            tokens = pad_tokens(captions, self.options.max_words)
        else:
            judge = self._judged(indices, mirrored)
        return self.learner.update(
            np.stack([self._features(i, m) for i, m in pairs]),
            tokens,
            judge,
            learning_rate=self._learning_rate(),
            decay=min(self.options.average, (1 + self.at.phase_step) / (10 + self.at.phase_step)),
            present=present,
        )

    def _features(self, index: int, mirrored: bool) -> np.ndarray:
        source = self.training.mirrored if mirrored else self.training.features
        if source is None:
            raise InputError("corpus: mirrored features are wanted and not there")
        return np.asarray(source[index], dtype=np.float32)

    def _learning_rate(self) -> float:
        """Linear warm-up, then half a cosine down to nothing; the reward phase ends at a tenth."""
        if self.at.phase == "mean":
            return 0.0
        done = (self.at.phase_step + 1) / max(self._steps(self.at.phase), 1)
        if self.at.phase == "reward":
            return self.options.reward_learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))
        warm = min(1.0, (self.at.phase_step + 1) / max(self.options.warmup, 1))
        return self.options.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * done))

    def _judged(self, indices: list[int], mirrored: list[bool]) -> Judge:
        """Rewards captions of these pictures."""
        if self._judge is None:
            self._judge = CiderJudge(self.training.captions)
        judge = self._judge

        def rewards(captions: list[list[tuple[int, ...]]]) -> Tensor:
            return torch.tensor(
                [
                    [
                        judge(self.vocabulary.decode(t), len(t) < self.options.max_words, i, m)
                        for t in drawn
                    ]
                    for drawn, i, m in zip(captions, indices, mirrored, strict=True)
                ]
            )  # (B, N)

        return rewards

    # validation

    def _validate(self) -> Scores:
        """Score the averaged weights by beam search; every process does it, on the same data."""
        captions = describe_features(
            self.learner.decoder_of(self.learner.averaged).to(self.learner.device),
            self.vocabulary,
            self.validation.features,
            beam=self.options.beam,
            length_penalty=self.options.length_penalty,
        )
        pairs = list(zip(captions, self.references, strict=True))
        cider = sum(self.scorer.score(words, group) for words, group in pairs) / len(pairs)
        references = self.validation.captions
        rouge = sum(rouge_l(w, r) for w, r in zip(captions, references, strict=True)) / len(pairs)
        return Scores(
            phase=self.at.phase,
            epoch=self.at.epoch + 1,
            step=self.at.step,
            learning_rate=self._learning_rate(),
            loss=self.at.loss_sum / max(self.at.loss_count, 1),
            cider=cider,
            bleu4=bleu(captions, references)[3],
            rouge_l=rouge,
            length=sum(map(len, captions)) / len(captions),
            seconds=self.at.seconds,
        )

    def _record(self, scores: Scores) -> None:
        self.at.history.append(asdict(scores))
        if scores.cider > self.at.best:
            self.at.best = scores.cider
            self.at.without_gain = 0
            self.learner.keep()
        else:
            self.at.without_gain += 1
        self.at.epoch += 1
        self.at.batch = 0
        self.at.loss_sum = self.at.loss_count = 0.0


def _seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _tell_nobody(_: Progress) -> None:
    """For processes but the first, and where nobody asked."""
