from __future__ import annotations

import pytest
import torch

from stylecap.captioning import products
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.options import DECODERS
from stylecap.captioning.stepper import Stepper
from stylecap.captioning.vocabulary import BOS, EOS, PAD
from stylecap.errors import OptionError

torch.set_num_threads(1)
SHAPE = {"words": 11, "channels": 6, "positions": 4, "units": 8, "heads": 2}


def decoder_of(kind: str, seed: int = 0) -> CaptionDecoder:
    torch.manual_seed(seed)
    return CaptionDecoder(DecoderShape(kind=kind, **SHAPE)).eval()


TOKENS = torch.tensor(
    [[[BOS, 4, 5, 6, EOS], [BOS, 7, EOS, PAD, PAD]], [[BOS, 8, 9, EOS, PAD], [BOS, 4, 4, 4, EOS]]]
)


@pytest.mark.parametrize("kind", DECODERS)
def test_teacher_forcing_equals_word_by_word(kind: str) -> None:
    decoder = decoder_of(kind)
    with torch.no_grad():
        features = torch.rand(2, 4, 6)
        forced = decoder.log_probs(decoder(decoder.look(features), TOKENS)[0]).flatten(0, 1)
        for engine in (decoder, Stepper([decoder])):
            scene = engine.look(features)
            state = engine.begin(scene, 2)
            for place in range(TOKENS.shape[-1]):
                told, state = engine.step(scene, TOKENS[..., place].flatten(), state)
                real = TOKENS[..., place].flatten() != PAD
                torch.testing.assert_close(told[real], forced[real, place], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_probabilities_sum_to_one_and_exclude_pad_and_bos(kind: str) -> None:
    decoder = decoder_of(kind)
    with torch.no_grad():
        told, _ = decoder.step(
            scene := decoder.look(torch.rand(3, 4, 6)),
            torch.full((3,), BOS),
            decoder.begin(scene, 1),
        )
    assert told.exp().sum(-1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert torch.isneginf(told[:, [PAD, BOS]]).all()


def test_attention_is_a_share_of_the_positions() -> None:
    decoder = decoder_of("attentive")
    with torch.no_grad():
        _, attention = decoder(decoder.look(torch.rand(2, 4, 6)), TOKENS, with_attention=True)
    assert attention is not None
    assert attention.shape == (2, 2, 5, 4)
    assert (attention >= 0).all()
    share = attention.sum(-1)
    assert ((share > 0) & (share < 1)).all()


def test_only_the_direction_of_features_counts() -> None:
    decoder = decoder_of("attentive")
    features = torch.rand(1, 4, 6)
    with torch.no_grad():
        first, second = (decoder(decoder.look(f), TOKENS[:1])[0] for f in (features, 9 * features))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", DECODERS)
def test_later_words_do_not_reach_earlier_outputs(kind: str) -> None:
    decoder = decoder_of(kind)
    changed = TOKENS.clone()
    changed[..., 3:] = 10
    with torch.no_grad():
        scene = decoder.look(torch.rand(2, 4, 6))
        first, second = decoder(scene, TOKENS)[0], decoder(scene, changed)[0]
    torch.testing.assert_close(first[:, :, :3], second[:, :, :3])
    assert not torch.allclose(first[:, :, 3], second[:, :, 3])


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_rounded_stepper_is_close(kind: str, dtype: torch.dtype) -> None:
    decoder = decoder_of(kind)
    with torch.no_grad():
        features, tokens = torch.rand(1, 4, 6), torch.tensor([BOS])
        exact, rough = (
            stepper.step(scene := stepper.look(features), tokens, stepper.begin(scene, 1))[0]
            for stepper in (Stepper([decoder]), Stepper([decoder], dtype))
        )
    torch.testing.assert_close(exact[:, 2:], rough[:, 2:], atol=0.05, rtol=0.05)
    rounds = dtype != torch.float16 or products.has_half()
    assert torch.equal(exact, rough) != rounds


@pytest.mark.parametrize("half", [True, False])
def test_weights_are_rounded_to_float16_where_that_is_fast(
    half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not half:
        monkeypatch.setattr(products, "has_half", lambda: False)
    elif not products.has_half():
        pytest.skip("torch has no products of float32 with float16 on this processor")
    rows, weight = torch.randn(2, 7, 33), torch.randn(50, 33)
    found = products.half_product(weight)(rows)
    rounded = weight.half().float() if half else weight
    torch.testing.assert_close(found, rows @ rounded.mT, atol=1e-5, rtol=1e-5)
    assert half != torch.equal(found, rows @ weight.mT)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("images", [1, 3])
def test_several_decoders_average_their_probabilities(kind: str, images: int) -> None:
    decoders = [decoder_of(kind, seed) for seed in range(3)]
    tokens = TOKENS[0].repeat(images, 1)
    features = torch.rand(images, 4, 6)
    with torch.no_grad():
        told = [
            decoder.log_probs(decoder(decoder.look(features), TOKENS[:1].repeat(images, 1, 1))[0])
            for decoder in decoders
        ]
        mean = torch.stack(told).exp().mean(0).flatten(0, 1)  # (2 images, T, V)
        both = Stepper(decoders)
        scene = both.look(features)
        read = both.read(scene, tokens)
        state = both.begin(scene, 2)
        for place in range(tokens.shape[1]):
            stepped, state = both.step(scene, tokens[:, place], state)
            real = tokens[:, place] != PAD
            torch.testing.assert_close(stepped[real].exp(), mean[real, place])
            torch.testing.assert_close(read[real, place].exp(), mean[real, place])


def test_what_was_dropped_in_training_does_not_part_decoders() -> None:
    one, other = DecoderShape(**SHAPE), DecoderShape(dropout=0.1, position_dropout=0.3, **SHAPE)
    assert one != other and one.trained == other.trained
    assert one.trained != DecoderShape(kind="plain", **SHAPE).trained


def test_hidden_positions_are_hidden_in_training_only() -> None:
    torch.manual_seed(0)
    decoder = CaptionDecoder(DecoderShape(dropout=0.0, position_dropout=0.5, **SHAPE))
    features = torch.rand(20, 4, 6)
    with torch.no_grad():
        keys = decoder.look(features).keys  # (20, H, D/H, P)
        hidden = (keys == 0).all(2)  # (20, H, P)
        assert (hidden == hidden[:, :1]).all()
        assert 0.3 < hidden.float().mean() < 0.7
        assert not (decoder.eval().look(features).keys == 0).all(2).any()


def test_refusals() -> None:
    with pytest.raises(OptionError, match="kind"):
        DecoderShape(kind="telepathic", **SHAPE)
    with pytest.raises(ValueError, match="heads"):
        DecoderShape(words=9, channels=6, positions=4, units=8, heads=3)
    with pytest.raises(ValueError, match="features"):
        decoder_of("plain").look(torch.rand(1, 5, 6))


@pytest.mark.parametrize("kind", DECODERS)
def test_rows_that_have_ended_may_be_dropped(kind: str) -> None:
    """What is left goes on as if the others were still there."""
    decoder = decoder_of(kind)
    kept = torch.tensor([0, 2, 4, 5])  # of images 0, 1 and, twice, 2
    with torch.no_grad():
        features = torch.rand(3, 4, 6)
        for engine in (decoder, Stepper([decoder])):
            scene = engine.look(features)
            first = torch.arange(4, 10)
            _, state = engine.step(scene, first, engine.begin(scene, 2))
            whole, _ = engine.step(scene, first, state)
            less = {name: value[kept] for name, value in state.items()}
            part, _ = engine.step(scene, first[kept], less)
            torch.testing.assert_close(part, whole[kept], rtol=1e-5, atol=1e-5)
