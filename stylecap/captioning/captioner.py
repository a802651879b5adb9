"""A trained captioner: features in, captions with their words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stylecap.backbone import Backbone
from stylecap.captioning.consensus import Consensus, Expected
from stylecap.captioning.decode import (
    Rules,
    Sentence,
    State,
    beam_search,
    greedy_search,
    sample,
)
from stylecap.captioning.features import View, grid_features, see
from stylecap.captioning.matching import Matcher, summary
from stylecap.captioning.model import CaptionDecoder, Scene
from stylecap.captioning.options import CaptionOptions
from stylecap.captioning.products import has_half
from stylecap.captioning.stepper import Stepper
from stylecap.captioning.vocabulary import BOS, EOS, PAD, UNK, Vocabulary, text_of, words_of
from stylecap.errors import OptionError
from stylecap.runtime import Runtime

_NEIGHBOURS = 5  # words shown as alternatives at each place
#: Options that are its own if unset.
_OWN = ("beam", "length_penalty", "match_weight", "consensus_weight")
_READ_ROWS = 32  # sentences times pictures that are read at a time


@dataclass(frozen=True, slots=True)
class CaptionWord:
    """One word of a caption.

    Attributes:
        word: as in the vocabulary; ``'s`` is a word of its own.
        prob: its probability after the words before it.
        attention: (h, w) where it looked, sums to one minus the share it did not need the
            picture for; None for a captioner that looks only once.
        alternatives: the most probable words at this place with their probabilities.
    """

    word: str
    prob: float
    attention: Tensor | None
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Caption:
    """A description of a picture.

    Attributes:
        text: lower case, without a full stop.
        log_prob: natural logarithm of its probability, summed over words, end included.
        words: one by one.
        alternatives: the whole captions found with their ``log_prob``, this one the first.
    """

    text: str
    log_prob: float
    words: tuple[CaptionWord, ...]
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that was found for a picture.

    Attributes:
        sentence: ids, log-probability and score.
        match: cosine of sentence and picture; 0 without a matcher.
    """

    sentence: Sentence
    match: float

    def value(self, match_weight: float) -> float:
        """What those of the beam are ranked by: score plus weighted match."""
        return self.sentence.score + match_weight * self.match


class Captioner:
    """One or several trained decoders that share a vocabulary and a view of the picture.

    Several are an ensemble: their probabilities are averaged word by word. A decoder knows what
    is often said after what. Two judges, if they are there, have a say beside it: the consensus,
    which expects n-grams from what people wrote about similar pictures, at every word of the
    beam; and the matcher, which was taught to tell a picture's own sentences from others, in
    which of the beam's sentences is the best.

    Args:
        decoders: at least one, of equal vocabulary and features.
        vocabulary: their words.
        view: how they see pictures; names the backbone.
        matcher: sees pictures in the same way.
        match_weight: of its cosine beside the score of the beam; chosen on validation data.
        consensus: sees pictures in the same way and has the same vocabulary.
        consensus_weight: of what a sentence is worth beside its log-probability; chosen likewise.
        beam: likewise, used where the options leave it open.
        length_penalty: likewise.
        record: how they were trained, kept in the file.
        runtime: device and precision; float32 on the CPU if None.
    Raises:
        ValueError: the decoders do not fit each other, the vocabulary or the view, a judge
            sees pictures in another way, or has a weight and is not there.
    """

    def __init__(
        self,
        decoders: Sequence[CaptionDecoder],
        vocabulary: Vocabulary,
        view: View,
        *,
        matcher: Matcher | None = None,
        match_weight: float = 0.0,
        consensus: Consensus | None = None,
        consensus_weight: float = 0.0,
        beam: int = 5,
        length_penalty: float = 0.7,
        record: Mapping[str, Any] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        shapes = {decoder.shape.trained for decoder in decoders}
        wanted = (len(vocabulary), view.grid**2)
        if [(shape.words, shape.positions) for shape in shapes] != [wanted]:
            raise ValueError(
                f"decoders: expected one or more of equal shape for {wanted[0]} words and "
                f"{wanted[1]} positions, got {shapes}"
            )
        judges = (("matcher", matcher, match_weight), ("consensus", consensus, consensus_weight))
        for name, judge, weight in judges:
            if judge is None and weight:
                raise ValueError(f"{name}: expected a weight of 0 without one, got {weight:g}")
            if judge is not None and judge.view != view:
                raise ValueError(
                    f"{name}: expected one that sees pictures as the decoders do, {view}, got one "
                    f"for {judge.view}"
                )
        if consensus is not None and consensus.words != len(vocabulary):
            raise ValueError(
                f"consensus: expected one for {len(vocabulary)} words, got {consensus.words}"
            )
        self.runtime = runtime or Runtime("cpu", "float32", torch.get_num_threads())
        self.decoders = [d.to(self.runtime.torch_device).eval() for d in decoders]
        self.vocabulary = vocabulary
        self.view = view
        self.matcher = matcher
        self.match_weight = match_weight
        self.consensus = consensus
        self.consensus_weight = consensus_weight
        self.beam = beam
        self.length_penalty = length_penalty
        self.record = dict(record or {})
        self._stepper = Stepper(self.decoders, product_dtype(self.runtime))

    @property
    def backbone_name(self) -> str:
        """The backbone whose features it reads."""
        return self.view.backbone

    def see(self, picture: Image.Image) -> Tensor:
        """A picture as (1, 3, side, side), exactly as the training pictures were."""
        return see(picture, self.view)

    def features(self, backbone: Backbone, image: Tensor) -> Tensor:
        """(B, 3, side, side) as `see` gives it to (B, P, C) features for `describe`."""
        return grid_features(backbone, image, self.view)

    def check(self, options: CaptionOptions) -> None:
        """Refuse options that fit no picture, before any is read.

        Raises:
            OptionError: as `describe`.
        """
        self._rules(self.settled(options))

    def settled(self, options: CaptionOptions | None = None) -> CaptionOptions:
        """The options with the captioner's own backbone, and its numbers where they are unset.

        Raises:
            OptionError: the weight of a judge above 0, and it is not there.
        """
        options = options or CaptionOptions()
        for name, judge, weight in (
            ("match_weight: this captioner has no matcher", self.matcher, options.match_weight),
            (
                "consensus_weight: this captioner has no consensus",
                self.consensus,
                options.consensus_weight,
            ),
        ):
            if weight and judge is None:
                raise OptionError(f"{name}, expected 0, got {weight:g}; leave it out")
        own = {name: getattr(self, name) for name in _OWN if getattr(options, name) is None}
        return replace(options, backbone=self.backbone_name, **own)

    def describe(self, features: Tensor, options: CaptionOptions | None = None) -> list[Caption]:
        """Describe pictures.

        Args:
            features: (B, P, C) of `features`.
            options: how to choose words.
        Returns:
            One caption a picture.
        Raises:
            OptionError: the prefix holds a word that the captioner does not know, or is longer
                than ``max_words``; or the weight of a judge is given, and it is not there.
            ValueError: the features have the wrong shape.
        """
        options = self.settled(options)
        weight = options.match_weight
        with torch.inference_mode():
            if len(features) == 0:
                return []
            scene, seen = self._look(features), summary(features)
            found, said = self._search(scene, options, self._expected(seen, options))
            if weight and options.method == "beam":
                found = [
                    [each.sentence for each in sorted(candidates, key=lambda c: -c.value(weight))]
                    for candidates in self._matched(seen, found)
                ]
            return self._captions(scene, [each[: options.alternatives] for each in found], said)

    def candidates(
        self, features: Tensor, options: CaptionOptions | None = None
    ) -> list[list[Candidate]]:
        """The sentences among which `describe` chooses.

        Args:
            features: (B, P, C) of `features`.
            options: as in `describe`.
        Returns:
            Those of each picture, in the order in which they were found best without the matcher.
        Raises:
            As `describe`.
        """
        options = self.settled(options)
        with torch.inference_mode():
            if len(features) == 0:
                return []
            scene, seen = self._look(features), summary(features)
            found, _ = self._search(scene, options, self._expected(seen, options))
            return self._matched(seen, found)

    def read(self, features: Tensor, sentences: Sequence[Sequence[str]]) -> Tensor:
        """How probable sentences are, given pictures.

        Args:
            features: (B, P, C) of `features`.
            sentences: N lists of words; those that it does not know count as ``<unk>``.
        Returns:
            (B, N) mean natural logarithm of a word's probability after those before it, the
            end included; on the CPU.
        Raises:
            ValueError: the features have the wrong shape.
        """
        rows = [[BOS, *self.vocabulary.encode(words), EOS] for words in sentences]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))  # little padding
        with torch.inference_mode():
            scene = self._look(features)
            found = scene.glance.new_empty(len(features), len(rows))  # (B, N)
            count = max(1, _READ_ROWS // max(1, len(features)))
            for start in range(0, len(rows), count):
                chosen = order[start : start + count]
                found[:, chosen] = self._read(scene, [rows[row] for row in chosen])
            return found.cpu()

    def _read(self, scene: Scene, rows: list[list[int]]) -> Tensor:
        """(B, N) as `read`, of N sentences with their ends."""
        tokens = torch.full((len(rows), max(map(len, rows))), PAD)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)] = torch.tensor(ids)
        tokens = tokens.to(self.runtime.torch_device)
        images = len(scene.glance)
        before, after = tokens[:, :-1].repeat(images, 1), tokens[:, 1:]  # (BN, T), (N, T)
        spoken = after != PAD
        log_probs = self._stepper.read(scene, before)  # (BN, T, V)
        each = log_probs.gather(-1, after.repeat(images, 1)[..., None])
        sums = each.view(images, *after.shape).masked_fill(~spoken, 0).sum(-1)  # (B, N)
        return sums / spoken.sum(-1)  # (B, N)

    def _look(self, features: Tensor) -> Scene:
        """(B, P, C) features to what the decoders see of them."""
        return self._stepper.look(features.to(self.runtime.torch_device, torch.float32))

    def _matched(self, seen: Tensor, found: list[list[Sentence]]) -> list[list[Candidate]]:
        """The sentences of each image, (B, 2C) of `summary`, beside how well they fit it."""
        if self.matcher is None:
            return [[Candidate(each, 0.0) for each in sentences] for sentences in found]
        words = [self.vocabulary.decode(each.tokens) for sentences in found for each in sentences]
        counts = [len(sentences) for sentences in found]
        pictures = self.matcher.pictures(seen.cpu())  # (B, D)
        pictures = pictures.repeat_interleave(torch.tensor(counts), dim=0)  # (M, D)
        cosines = (pictures * self.matcher.sentences(words)).sum(-1)  # (M,)
        return [
            [Candidate(each, match) for each, match in zip(sentences, part.tolist(), strict=True)]
            for sentences, part in zip(found, torch.split(cosines, counts), strict=True)
        ]

    def _expected(self, seen: Tensor, options: CaptionOptions) -> Expected | None:
        """What the consensus expects of pictures, (B, 2C) of `summary`, if it is to be asked."""
        weight = options.consensus_weight
        if self.consensus is None or not weight or options.method != "beam":
            return None
        return self.consensus.expected(seen.to(self.runtime.torch_device), weight)

    def _search(
        self, scene: Scene, options: CaptionOptions, expected: Expected | None
    ) -> tuple[list[list[Sentence]], list[Tensor]]:
        """The sentences of each image, and (R, E, D) what the LSTMs gave out in every step."""
        rules, said = self._rules(options), []
        images = len(scene.glance)

        def begin(rows: int) -> State:
            state = self._stepper.begin(scene, rows // images)
            return state if expected is None else {**state, **expected.begin(rows)}

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            log_probs, state = self._stepper.step(scene, tokens, state)
            said.append(state["hidden"])
            return log_probs, state

        if options.method == "greedy":
            return greedy_search(begin, step, images, rules), said
        if options.method == "sample":
            generator = torch.Generator(self.runtime.torch_device).manual_seed(options.seed)
            drawn = sample(
                begin,
                step,
                images,
                rules,
                count=options.alternatives,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                generator=generator,
            )
            return [sorted(each, key=lambda sentence: -sentence.log_prob) for each in drawn], said
        beam, penalty = options.beam, options.length_penalty
        assert beam is not None and penalty is not None  # `settled`
        found = beam_search(
            begin, step, images, rules, beam=beam, length_penalty=penalty, worth=expected
        )
        return found, said

    def _rules(self, options: CaptionOptions) -> Rules:
        words = words_of(options.prefix)
        unknown = [word for word in words if word not in self.vocabulary]
        if unknown:
            raise OptionError(
                f"prefix: this captioner does not know the word {unknown[0]!r}; it knows "
                f"{len(self.vocabulary) - 4} words, choose others"
            )
        if len(words) > options.max_words:
            raise OptionError(
                f"prefix: expected at most max_words={options.max_words} words, got {len(words)}"
            )
        prefix = tuple(self.vocabulary.encode(words))
        return Rules(BOS, EOS, banned=(UNK,), max_words=options.max_words, prefix=prefix)

    def _captions(
        self, scene: Scene, found: list[list[Sentence]], said: list[Tensor]
    ) -> list[Caption]:
        """Look up each word's probability and attention in the best sentence of each image."""
        best = [sentences[0] for sentences in found]
        tokens = pad_sequence([torch.tensor(each.tokens) for each in best], True, PAD)  # (B, T)
        tokens = tokens.to(self.runtime.torch_device)
        hidden = pad_sequence(
            [
                torch.stack([step[row] for step, row in zip(said, each.rows, strict=False)])
                for each in best
            ],
            batch_first=True,
        )  # (B, T+1, E, D)
        log_probs, attention = self._stepper.predict(scene, hidden)  # (B, T+1, V), (B, T+1, P)
        probs = log_probs.exp()
        shown = probs.clone()
        shown[..., [UNK, EOS]] = 0
        top = shown.topk(min(_NEIGHBOURS, shown.shape[-1]), dim=-1)
        chosen = probs[:, :-1].gather(-1, tokens[..., None])[..., 0].tolist()
        top_probs, top_ids = top.values.tolist(), top.indices.tolist()
        attention = None if attention is None else attention.cpu()
        side = self.view.grid
        captions = []
        for row, sentences in enumerate(found):
            words = tuple(
                CaptionWord(
                    word=self.vocabulary.words[token],
                    prob=chosen[row][place],
                    attention=None if attention is None else attention[row, place].view(side, side),
                    alternatives=tuple(
                        (self.vocabulary.words[index], prob)
                        for index, prob in zip(
                            top_ids[row][place], top_probs[row][place], strict=True
                        )
                    ),
                )
                for place, token in enumerate(sentences[0].tokens)
            )
            texts = [text_of(self.vocabulary.decode(each.tokens)) for each in sentences]
            totals = [each.log_prob for each in sentences]
            captions.append(
                Caption(texts[0], totals[0], words, tuple(zip(texts, totals, strict=True)))
            )
        return captions


def product_dtype(runtime: Runtime) -> torch.dtype:
    """Type of the weights in a decoder's matrix products, the fastest one here.

    An x86 processor with units for bfloat16 has those for int8 as well, which are twice as fast.
    Elsewhere torch multiplies int8 without such units, slowly, but float16 may be fast.
    """
    if runtime.device != "cpu":
        return runtime.dtype
    if runtime.precision == "bfloat16":
        has_units = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        return torch.int8 if has_units else runtime.dtype
    return torch.float16 if has_half() else runtime.dtype
