from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from stylecap.captioning.captioner import Captioner
from stylecap.captioning.captioner_file import save_captioner
from stylecap.captioning.features import View
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.vocabulary import SPECIALS, Vocabulary
from stylecap.cli.main import main
from stylecap.errors import OptionError
from stylecap.images import load_picture, save_picture, to_picture
from stylecap.studio.align import align, contrast, hottest_box, word_pictures, word_sheet

from .small import photo, small_backbone

torch.set_num_threads(1)


def captioner(kind: str = "attentive") -> Captioner:
    torch.manual_seed(0)
    words = Vocabulary([*SPECIALS, "a", "cat", "dog", "sleeps", "'s"])
    view = View("alexnet", ("relu2",), 3, 64)
    shape = DecoderShape(len(words), 192, 9, kind=kind, units=16, heads=2)
    return Captioner([CaptionDecoder(shape)], words, view)


def test_every_word_of_a_caption_has_its_place() -> None:
    picture = to_picture(photo(64, 1))
    alignment = align(captioner(), small_backbone(), picture, "A dog's cat sleeps")
    assert alignment.text == "a dog's cat sleeps"
    assert [word.word for word in alignment.words] == ["a", "dog", "'s", "cat", "sleeps"]
    for word in alignment.words:
        assert word.heat.shape == (3, 3) and float(word.heat.sum()) == pytest.approx(1, abs=1e-4)
        assert 0 < word.looked < 1 and 0 < word.prob < 1
        top, left, bottom, right = word.box
        assert 0 <= top < bottom <= 1 and 0 <= left < right <= 1
    own = align(captioner(), small_backbone(), picture)
    assert own.text.split() and own.words[0].word in own.text
    tiles = word_pictures(alignment, picture, 90)
    assert len(tiles) == 5 and tiles[0].size == (90, 90)
    assert word_sheet(alignment, Image.new("RGBA", (40, 20))).width > 240


def test_what_cannot_be_aligned_is_refused() -> None:
    picture = to_picture(photo(64, 1))
    with pytest.raises(OptionError, match="does not know zebra, runs"):
        align(captioner(), small_backbone(), picture, "a zebra runs")
    with pytest.raises(OptionError, match="expected a sentence"):
        align(captioner(), small_backbone(), picture, " ... ")
    with pytest.raises(OptionError, match="attentive"):
        align(captioner("plain"), small_backbone(), picture, "a cat")


def test_contrast_takes_away_what_all_words_share() -> None:
    """By hand: the mean of (0.6, 0.4) and (0.4, 0.6) is (0.5, 0.5); 0.1 is left of each."""
    maps = torch.tensor([[[0.6, 0.4]], [[0.4, 0.6]]])
    assert torch.allclose(contrast(maps), torch.tensor([[[1.0, 0]], [[0, 1]]]), atol=1e-5)
    alone = torch.tensor([[[0.7, 0.3]]])
    assert torch.equal(contrast(alone), alone)


def test_the_box_holds_the_hot_part_and_no_other() -> None:
    heat = torch.zeros(7, 7)
    heat[1:3, 4:6] = 1.0
    heat[6, 0] = 0.9  # as hot, but apart
    top, left, bottom, right = hottest_box(heat)
    assert (top, left, bottom, right) == pytest.approx((1 / 7, 4 / 7, 3 / 7, 6 / 7), abs=0.06)
    assert hottest_box(torch.ones(4, 5)) == (0, 0, 1, 1)


@pytest.mark.real_weights
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_picture(to_picture(photo(64, 1)), "photo.png")
    save_captioner(captioner(), "own.safetensors")
    argv = ["align", "photo.png", "--captioner", "own.safetensors"]
    assert main([*argv, "--caption", "a cat sleeps"]) == 0
    assert capsys.readouterr().out == "words.png: a cat sleeps\n"
    assert load_picture("words.png").width > 3 * 240
    assert main([*argv, "--caption", "a cat", "--json", "-o", "w.png"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [word["word"] for word in told["words"]] == ["a", "cat"]
    assert len(told["words"][0]["box"]) == 4
    assert main([*argv, "--caption", "a bird"]) == 2
    assert "does not know bird" in capsys.readouterr().err
