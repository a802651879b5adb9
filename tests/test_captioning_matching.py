"""How well sentences fit pictures, and captioners that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stylecap.captioning.captioner import Captioner
from stylecap.captioning.captioner_file import load_captioner, save_captioner
from stylecap.captioning.features import VIEWS, View
from stylecap.captioning.matching import (
    EmbeddingShape,
    JointEmbedding,
    Matcher,
    SentenceReader,
    load_matcher,
    pad_sentences,
    ranking_loss,
    summary,
)
from stylecap.captioning.options import CaptionOptions
from stylecap.captioning.recipe import join_captioners, with_judges
from stylecap.captioning.tuning import choose_search
from stylecap.captioning.vocabulary import SPECIALS, Vocabulary, words_of
from stylecap.describing import caption
from stylecap.errors import InputError, OptionError, WeightsError
from stylecap.images import to_picture
from stylecap.server.describing import describe, describe_with
from stylecap.studio.align import align
from stylecap.studio.quality import caption_drift
from stylecap.tensorfile import load_tensors, save_tensors
from tests.small import photo, small_backbone, small_captioner

torch.set_num_threads(1)
VIEW = VIEWS["vgg16"]


def test_ranking_loss_by_hand() -> None:
    """Margin 0.2. Pictures: max(0, .2-.9+.8) = .1, and 0; sentences: 0, and max(0, .2-.5+.8) = .5.

    With all negatives the same here, since each has one; a third pair makes the difference.
    """
    scores = torch.tensor([[0.9, 0.8], [0.1, 0.5]])
    assert float(ranking_loss(scores, 0.2)) == pytest.approx((0.1 + 0 + 0 + 0.5) / 2)
    three = torch.zeros(3, 3)
    assert float(ranking_loss(three, 0.2)) == pytest.approx(0.4)
    assert float(ranking_loss(three, 0.2, hardest=False)) == pytest.approx(0.8)
    assert float(ranking_loss(torch.eye(3), 0.2)) == 0
    with pytest.raises(ValueError, match="B, B"):
        ranking_loss(torch.zeros(2, 3), 0.2)


@pytest.mark.parametrize("arranged", [False, True])
def test_padding_does_not_change_a_sentence(arranged: bool) -> None:
    model = embedding()
    with torch.no_grad():
        read = SentenceReader(model) if arranged else model.sentences
        short = read(pad_sentences([[4, 5]]))
        long = read(pad_sentences([[4, 5], [6, 7, 8, 5, 4]]))
    assert torch.allclose(short[0], long[0], atol=1e-6)
    assert torch.allclose(long.norm(dim=1), torch.ones(2), atol=1e-6)
    assert pad_sentences([[], [4] * 30]).shape == (2, 24)


@given(st.lists(st.lists(st.integers(4, 8), min_size=1, max_size=7), min_size=1, max_size=6))
def test_a_reader_reads_as_the_embedding_that_was_trained(sentences: list[list[int]]) -> None:
    model, tokens = embedding(), pad_sentences(sentences)
    with torch.no_grad():
        torch.testing.assert_close(
            SentenceReader(model)(tokens), model.sentences(tokens), atol=2e-3, rtol=0
        )


def embedding() -> JointEmbedding:
    """Of nine words, with biases that matter."""
    torch.manual_seed(0)
    model = JointEmbedding(EmbeddingShape(9, 4, units=8, word_units=8)).eval()
    for name, weight in model.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(weight)
    return model


def test_a_file_without_a_matcher_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="another file"):
        load_matcher(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be read"):
        load_matcher(tmp_path / "b.safetensors")
    words = Vocabulary([*SPECIALS, "cat"])
    with pytest.raises(ValueError, match=r"for 5 words .* \[\(9, 4\)\]"):
        Matcher([JointEmbedding(EmbeddingShape(9, 4, units=8, word_units=8))], words, VIEW)


# captioners that ask


def small_matcher(seed: int = 0, view: View = VIEWS["alexnet"]) -> Matcher:
    """A matcher that has learned nothing, for the pictures and words of `small_captioner`."""
    captioner = small_captioner()
    torch.manual_seed(seed)
    shape = EmbeddingShape(len(captioner.vocabulary), captioner.decoders[0].shape.channels, 16, 8)
    return Matcher([JointEmbedding(shape)], captioner.vocabulary, view, record={"seed": seed})


@pytest.fixture(scope="module")
def features() -> Tensor:
    """Of three pictures."""
    captioner = small_captioner()
    return captioner.features(small_backbone(), torch.cat([photo(224, n) for n in range(3)]))


def asking(weight: float) -> Captioner:
    captioner = with_judges(small_captioner(), matcher=small_matcher())
    captioner.match_weight = weight
    return captioner


def test_score_and_match_are_added(features: Tensor) -> None:
    """What is ranked by hand, from the public parts, is what is said."""
    captioner, matcher = asking(4.0), small_matcher()
    options = CaptionOptions(beam=5)
    plain = small_captioner().describe(features, options)
    cosines = [
        (matcher.sentences([words_of(text) for text, _ in each.alternatives]) @ point).tolist()
        for each, point in zip(plain, matcher.pictures(summary(features)), strict=True)
    ]
    for before, match, after in zip(
        plain, cosines, captioner.describe(features, options), strict=True
    ):
        values = {
            text: log_prob / (len(text.split()) + 1) ** captioner.length_penalty + 4 * cosine
            for (text, log_prob), cosine in zip(before.alternatives, match, strict=True)
        }
        assert [text for text, _ in after.alternatives] == sorted(values, key=lambda t: -values[t])
        assert after.text == after.alternatives[0][0] == " ".join(w.word for w in after.words)
        assert dict(after.alternatives) == pytest.approx(dict(before.alternatives))
    texts = [each.text for each in captioner.describe(features, options)]
    assert texts != [each.text for each in plain]  # or nothing was tried
    off = captioner.describe(features, CaptionOptions(beam=5, match_weight=0.0))
    assert [each.alternatives for each in off] == [each.alternatives for each in plain]


def test_only_the_beam_is_ranked_anew(features: Tensor) -> None:
    for options in (
        CaptionOptions(method="greedy"),
        CaptionOptions(method="sample", seed=3, alternatives=4),
    ):
        mine, plain = (c.describe(features, options) for c in (asking(50.0), small_captioner()))
        assert [each.alternatives for each in mine] == [each.alternatives for each in plain]


def test_a_picture_is_described_alone_as_among_others(features: Tensor) -> None:
    captioner = asking(4.0)
    together = captioner.describe(features)
    for row, each in enumerate(together):
        (alone,) = captioner.describe(features[row : row + 1])
        assert alone.text == each.text
        assert [text for text, _ in alone.alternatives] == [text for text, _ in each.alternatives]


def test_it_is_kept_in_the_file(features: Tensor, tmp_path: Path) -> None:
    captioner = asking(4.0)
    save_captioner(captioner, tmp_path / "a.safetensors")
    again = load_captioner(tmp_path / "a.safetensors", runtime=captioner.runtime)
    assert again.match_weight == 4.0 and again.matcher is not None
    assert again.matcher.record == {"seed": 0}
    options = CaptionOptions(beam=5)
    ours, theirs = (
        {
            (row, each.sentence.tokens): each.match
            for row, some in enumerate(c.candidates(features, options))
            for each in some
        }
        for c in (captioner, again)
    )
    both = ours.keys() & theirs.keys()  # weights are kept in 16 bits: an order may change
    assert len(both) >= 8
    for sentence in both:
        assert theirs[sentence] == pytest.approx(ours[sentence], abs=5e-3)
    joined = join_captioners([again, again])  # whose weight would be another
    assert joined.matcher is None and joined.match_weight == 0 and joined.view == again.view
    settled = again.settled()
    assert (settled.backbone, settled.match_weight) == ("alexnet", 4.0)
    assert again.settled(CaptionOptions(match_weight=0.0)).match_weight == 0.0


def test_the_search_takes_it_from_the_same_file(features: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_captioner(asking(4.0), path)
    again = load_matcher(path)
    texts = [["a", "dog"], ["the", "red", "ball"]]
    torch.testing.assert_close(
        again.sentences(texts), small_matcher().sentences(texts), atol=5e-3, rtol=0
    )
    save_captioner(small_captioner(), path)
    with pytest.raises(WeightsError, match="there is no matcher in it; `stylecap train-search`"):
        load_matcher(path)


def test_a_damaged_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_captioner(asking(4.0), path)
    header, tensors = load_tensors(path, "captioner", 1, ())
    del tensors["matcher/0/picture.weight"]
    save_tensors(path, header, tensors)
    with pytest.raises(WeightsError, match="captioner is damaged or incomplete"):
        load_captioner(path)
    with pytest.raises(WeightsError, match="matcher is damaged or incomplete"):
        load_matcher(path)


@pytest.mark.real_weights
def test_the_shipped_captioner_has_one() -> None:
    captioner = load_captioner("vgg16")
    assert captioner.matcher is not None and captioner.match_weight > 0
    assert captioner.view == captioner.matcher.view == VIEW


def test_all_that_describes_asks_it(features: Tensor) -> None:
    """The page, the alignment and the card say what the matcher likes, too."""
    captioner, backbone = asking(4.0), small_backbone()
    picture = to_picture(photo(96, 1))
    own = describe(Path("a.png"), picture, captioner, backbone, CaptionOptions())
    assert own.caption.text == caption(picture, captioner=captioner, backbone=backbone).text
    changed = describe_with(own, captioner, 1, "water").caption
    assert [each.word for each in changed.words[:2]] == [own.caption.words[0].word, "water"]
    assert align(captioner, backbone, picture).text == own.caption.text
    drift = caption_drift(picture, picture, captioner, backbone)
    assert drift.content == own.caption.text
    assert drift.nats_per_word == pytest.approx(0, abs=1e-5)


def test_a_matcher_of_other_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a weight of 0 without one, got 2"):
        plain = small_captioner()
        Captioner(plain.decoders, plain.vocabulary, plain.view, match_weight=2.0)
    for view in (VIEWS["vgg16"], View("alexnet", ("relu4", "relu5"), 6)):
        with pytest.raises(InputError, match="sees pictures as the captioner does"):
            with_judges(small_captioner(), matcher=small_matcher(view=view))


def test_without_a_matcher_there_is_nothing_to_weigh(features: Tensor) -> None:
    options = CaptionOptions(match_weight=2.0)
    for ask in (
        small_captioner().check,
        lambda options: small_captioner().describe(features, options),
    ):
        with pytest.raises(OptionError, match="no matcher, expected 0, got 2"):
            ask(options)
    assert small_captioner().describe(features, CaptionOptions(match_weight=0.0))


def test_its_weight_is_chosen_by_what_it_brings(features: Tensor) -> None:
    """Where people said what the matcher likes best, it gets weight; where the beam, none."""
    beam = small_captioner().candidates(features, CaptionOptions(beam=5, length_penalty=0.7))
    wanted = [[each.sentence.tokens for each in some][-1] for some in beam]  # the beam's last
    words = small_captioner().vocabulary.decode

    class Knowing(Matcher):
        def sentences(self, sentences: Sequence[Sequence[str]]) -> Tensor:
            right = [tuple(words(tokens)) for tokens in wanted]
            return torch.tensor([[float(tuple(each) in right)] for each in sentences])

        def pictures(self, summaries: Tensor) -> Tensor:
            return torch.ones(len(summaries), 1)

    plain = small_matcher()
    knowing = Knowing(plain.models, plain.vocabulary, plain.view)
    said = [[tuple(words(tokens))] for tokens in wanted]
    captioner = with_judges(small_captioner(), matcher=knowing)
    choose_search(captioner, features.numpy(), said, said)
    assert captioner.match_weight > 0
    tried = captioner.record["search"]["tried"]
    assert choose_search(captioner, features.numpy(), said, said, should_stop=lambda: True) is False
    assert captioner.record["search"]["tried"] == tried  # a stop changes nothing
    without = max(each["cider"] for each in tried if each["match_weight"] == 0)
    assert captioner.record["search"]["best"]["cider"] > without + 1
    first = [[tuple(words(some[0].sentence.tokens))] for some in beam]
    other = with_judges(small_captioner(), matcher=knowing)
    choose_search(other, features.numpy(), first, first)
    assert other.match_weight == 0
