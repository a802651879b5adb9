from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylecap.backbone import load_backbone
from stylecap.captioning.features import VIEWS
from stylecap.captioning.matching import (
    EmbeddingShape,
    JointEmbedding,
    Matcher,
    join_matchers,
    load_matcher,
    summary,
)
from stylecap.captioning.options import CaptionOptions
from stylecap.captioning.vocabulary import SPECIALS, Vocabulary
from stylecap.cli.main import main
from stylecap.cli.terminal import Interruption
from stylecap.errors import InputError, OptionError
from stylecap.images import load_picture, save_picture, to_picture
from stylecap.runtime import Runtime
from stylecap.studio import retrieval
from stylecap.studio import search as search_module
from stylecap.studio.options import RerankOptions, SearchTrainOptions
from stylecap.studio.retrieval import (
    Recalls,
    evaluate_search,
    nearest,
    ranks,
    rerank_hits,
    reranked,
)
from stylecap.studio.search import Hit, PictureIndex, style_moments
from stylecap.studio.train_search import Pairs, _batches, evaluate, train_search
from tests.small import photo, small_backbone, small_captioner

torch.set_num_threads(1)
VIEW = VIEWS["vgg16"]


class ByColor:
    """The mean colour of a picture, as its content; counts what it is asked."""

    def __init__(self, key: str = "color") -> None:
        self.key = key
        self.asked = 0

    def __call__(self, picture: Image.Image) -> dict[str, np.ndarray]:
        self.asked += 1
        color = np.asarray(picture.convert("RGB"), np.float32).mean((0, 1)) + 1
        return {"content": color / np.linalg.norm(color)}


RED, GREEN = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])


def pictures(folder: Path, **colors: str) -> list[Path]:
    for name, color in colors.items():
        save_picture(Image.new("RGB", (9, 9), color), folder / f"{name}.png")
    return sorted(folder.glob("*.png"))


def test_the_nearest_come_first(tmp_path: Path) -> None:
    paths = pictures(tmp_path, a="#ff0000", b="#00ff00", c="#ff8000", d="#0000ff")
    index = PictureIndex(tmp_path / "index", tmp_path)
    done = index.update(paths, ByColor())
    assert (done.added, done.kept, done.removed, done.failed) == (4, 0, 0, ())
    hits = index.search("content", RED, 2)
    assert [hit.path.name for hit in hits] == ["a.png", "c.png"]
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    # As good as looking at them all.
    again = PictureIndex(tmp_path / "index", tmp_path).search("content", GREEN, 99)
    assert [hit.path.name for hit in again][:2] == ["b.png", "c.png"] and len(again) == 4


def test_only_what_changed_is_computed_again(tmp_path: Path) -> None:
    paths = pictures(tmp_path, a="#ff0000", b="#00ff00", c="#0000ff")
    index = PictureIndex(tmp_path / "index", tmp_path)
    index.update(paths, ByColor())
    paths = pictures(tmp_path, b="#fe0100", e="#101010")
    os.utime(tmp_path / "b.png", ns=(1, 1))
    (tmp_path / "c.png").unlink()
    embedder = ByColor()
    done = index.update([path for path in paths if path.exists()], embedder)
    assert (done.added, done.kept, done.removed, embedder.asked) == (2, 1, 1, 2)
    hits = index.search("content", RED, 9)
    assert {hit.path.name for hit in hits[:2]} == {"a.png", "b.png"}
    assert len(hits) == len(index) == 3
    (tmp_path / "b.png").write_bytes(b"damaged")
    done = index.update([path for path in paths if path.exists()], ByColor())
    assert (done.removed, [path.name for path, _ in done.failed]) == (1, ["b.png"])
    assert "b.png" not in {hit.path.name for hit in index.search("content", RED, 9)}
    pictures(tmp_path, b="#fe0100")
    other = ByColor("another network")
    assert index.update([path for path in paths if path.exists()], other).added == 3
    assert len(index) == 3 and len(list((tmp_path / "index").iterdir())) == 1


def test_a_kill_loses_at_most_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at every picture in turn, and once in the middle of writing."""
    monkeypatch.setattr(search_module, "_PART_ROWS", 2)
    paths = pictures(tmp_path, a="#ff0000", b="#00ff00", c="#0000ff", d="#ffff00", e="#ffffff")
    folder = tmp_path / "index"

    class Killed(BaseException):
        pass

    class Dying(ByColor):
        def __call__(self, picture: Image.Image) -> dict[str, np.ndarray]:
            if self.asked == 3:
                os._exit(9)
            return super().__call__(picture)

    child = os.fork()
    if child == 0:
        PictureIndex(folder, tmp_path).update(paths, Dying())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (folder / ".half-written.part").write_bytes(b"rubbish")
    index = PictureIndex(folder, tmp_path)
    assert len(index) == 2
    embedder = ByColor()
    assert index.update(paths, embedder).added == 3 == embedder.asked
    assert len(index.search("content", RED, 9)) == 5


def test_stopping_keeps_what_is_done(tmp_path: Path) -> None:
    paths = pictures(tmp_path, a="#ff0000", b="#00ff00", c="#0000ff")
    index = PictureIndex(tmp_path / "index", tmp_path)
    embedder = ByColor()
    done = index.update(paths, embedder, should_stop=lambda: embedder.asked == 2)
    assert done.stopped and done.added == len(index) == 2
    assert index.update(paths, ByColor()).added == 1


def test_many_small_files_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "_MANY_PARTS", 2)
    index = PictureIndex(tmp_path / "index", tmp_path)
    for name in "abcd":
        paths = pictures(tmp_path, **{name: f"#{'abcd'.index(name) * 60:02x}00ff"})
        index.update(paths, ByColor())
    assert len(list((tmp_path / "index").iterdir())) <= 2
    assert len(index) == 4 and index.search("content", RED, 1)[0].path.name == "d.png"


def test_what_cannot_be_indexed_or_searched_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    paths = pictures(tmp_path, a="#ff0000")
    index = PictureIndex(tmp_path / "index", tmp_path)
    with pytest.raises(InputError, match="no picture in the index"):
        index.search("content", RED)
    done = index.update(paths, ByColor())
    assert done.added == 1 and done.failed[0][0].name == "bad.png"
    with pytest.raises(OptionError, match="no vectors for 'words'"):
        index.search("words", RED)
    with pytest.raises(OptionError, match="content, style, words"):
        index.search("sound", RED)
    (tmp_path / "index" / "00000007.safetensors").write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"00000007.*remove it"):
        len(index)


def test_style_moments_do_not_know_places() -> None:
    features = torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    turned = features.flip(2).transpose(2, 3)
    assert torch.allclose(style_moments([features]), style_moments([turned]), atol=1e-6)
    assert float(style_moments([features, features]).norm()) == pytest.approx(1, abs=1e-5)


def test_a_matcher_of_another_space_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its vectors would be compared with those of other pictures."""
    words = Vocabulary([*SPECIALS, "cat"])
    model = JointEmbedding(EmbeddingShape(len(words), 896, units=8, word_units=8))
    matcher = Matcher([model], words, VIEWS["alexnet"])
    with pytest.raises(OptionError, match="train one with --backbone vgg16"):
        search_module.check_matcher(matcher)
    matcher.save(tmp_path / "a.safetensors")
    PictureIndex(tmp_path / ".stylecap-index", tmp_path).update(
        pictures(tmp_path, a="#ff0000"), ByColor()
    )
    named = ["--matcher", str(tmp_path / "a.safetensors")]
    for command in (["index", str(tmp_path)], ["search", str(tmp_path), "--words", "cat"]):
        assert main([*command, *named]) == 2
        assert "train one with --backbone vgg16" in capsys.readouterr().err


# training the joint embedding


def pairs(seed: int = 0) -> Pairs:
    words = ["dog", "cat", "bird", "horse", "boat", "tree", "child", "ball", "snow", "rock"]
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(10, 4, 12, generator=generator)
    captions = [[["a", word], ["the", "big", word]] for word in words]
    return Pairs(summary(features), captions, summary(features.flip(1)))


TINY = SearchTrainOptions(
    units=32, word_units=16, dropout=0.0, min_count=1, epochs=40, gentle_epochs=5, batch=10,
    learning_rate=1e-2, average=0.5,
)  # fmt: skip


def test_training_finds_the_pairs(tmp_path: Path) -> None:
    """Ten pictures, twenty sentences: learnt by heart, kept through the file, all found."""
    told: list[str] = []
    model, words, record = train_search(
        pairs(), pairs(), TINY, on_progress=lambda p: told.append(p.message)
    )
    found = evaluate(model, words, pairs())
    assert found.image_to_text[0] == 100 and found.text_to_image[0] == 100
    assert record["validation"]["text_to_image"] == found.text_to_image
    assert any("image to text 100.0/100.0/100.0" in message for message in told)
    Matcher([model], words, VIEW, record=record).save(tmp_path / "a.safetensors")
    again = load_matcher(tmp_path / "a.safetensors")
    assert again.record["epoch"] == record["epoch"]
    asked = again.embed_words("A horse!")
    scores = again.pictures(pairs().summaries) @ asked
    assert int(scores.argmax()) == 3
    both = join_matchers([again, again])
    both.save(tmp_path / "both.safetensors")
    twice = load_matcher(tmp_path / "both.safetensors")
    assert torch.allclose(
        twice.pictures(pairs().summaries) @ twice.embed_words("A horse!"), scores, atol=1e-6
    )
    with pytest.raises(InputError, match="two or more, got 1"):
        join_matchers([again])
    again.vocabulary = Vocabulary([*SPECIALS, *words.words[:3:-1]])
    with pytest.raises(InputError, match="1 and 2 differ in their words"):
        join_matchers([twice, again])
    with pytest.raises(OptionError, match="none of"):
        again.embed_words("zeppelin")


def test_a_stop_gives_the_best_so_far() -> None:
    model, _, record = train_search(pairs(), pairs(), TINY, should_stop=lambda: True)
    assert record["epoch"] == 0 and not model.training
    with pytest.raises(InputError, match="at least two"):
        train_search(Pairs(torch.zeros(1, 8), [[["a"]]]), pairs(), TINY)
    with pytest.raises(ValueError, match="of 3 pictures, got 1"):
        Pairs(torch.zeros(3, 8), [[["a"]]])


def test_a_stop_before_anything_is_learnt_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "captions.csv"
    rows = ["picture,caption,split"]
    for number in range(8):
        save_picture(to_picture(photo(32, number)), tmp_path / f"{number}.png")
        rows.append(f"{number}.png,a dog runs,{'dev' if number > 3 else 'train'}")
    data.write_text("\n".join(rows))
    learn = ["train-search", str(data), "-o", str(tmp_path / "m.safetensors"), "--min-count", "1"]
    learn += ["--cache", str(tmp_path / "cache"), "--backbone", "alexnet", "--epochs", "1"]
    learn += ["--gentle-epochs", "0", "--units", "8", "--word-units", "8", "--quiet"]
    assert main(learn) == 0
    before = (tmp_path / "m.safetensors").read_bytes()

    def stop(self: Interruption) -> bool:
        self.requested = True
        return True

    monkeypatch.setattr(Interruption, "__call__", stop)  # the features are there already
    assert main(learn) == 130
    assert (tmp_path / "m.safetensors").read_bytes() == before


def test_no_batch_holds_two_sentences_of_one_picture() -> None:
    torch.manual_seed(0)
    owners = torch.arange(7).repeat_interleave(3)
    batches = _batches(owners, 4)
    assert sorted(torch.cat(batches).tolist()) == list(range(21))
    for batch in batches:
        assert len(set(owners[batch].tolist())) == len(batch)


# how well they find each other


def test_recalls_by_hand() -> None:
    """Six pictures, a sentence each; the first picture's lies one place behind, the last's last."""
    scores = torch.eye(6)
    scores[0, 1] = 2.0
    scores[5] = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    found = Recalls.of(*ranks(scores, torch.arange(6)))
    assert found.image_to_text == pytest.approx((400 / 6, 500 / 6, 100))
    # Sentence 1 finds picture 0 first; sentence 5 finds its picture 5 first all the same.
    assert found.text_to_image == pytest.approx((500 / 6, 100, 100))
    assert found.total == pytest.approx((400 + 500 + 500) / 6 + 300)
    assert str(found).startswith("image to text 66.7/83.3/100.0, text to image 83.3")


def test_any_sentence_of_a_picture_counts() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.1, 0.3]])
    found = Recalls.of(*ranks(scores, torch.tensor([0, 0, 1])))
    assert found.image_to_text[0] == 100
    assert found.text_to_image[0] == pytest.approx(100 / 3)


def test_reranking_changes_the_order_of_the_nearest_only() -> None:
    cosines = torch.arange(12.0)[None] / 12
    evidence = torch.zeros(1, 12)
    evidence[0, [0, 2]] = 50.0
    assert nearest(cosines, 3, 1).tolist() == [[False] * 9 + [True] * 3]
    assert nearest(cosines, 3, 0).all()
    near = nearest(cosines, 10, 1)
    scores = reranked(cosines, evidence, near, 0.1)
    assert int(scores.argmax()) == 2 and torch.isinf(scores[0, :2]).all()
    untouched = reranked(cosines, evidence, near, 0.0)
    assert torch.equal(untouched[0, 2:], cosines[0, 2:])
    with pytest.raises(OptionError, match="candidates"):
        RerankOptions(candidates=9)


def test_hits_are_read_again(tmp_path: Path) -> None:
    """The order follows the captioner's own reading; a lost picture stays, behind those read."""
    captioner, backbone = small_captioner(), small_backbone()
    hits = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        save_picture(to_picture(photo(64, number)), path)
        hits.append(Hit(path, 0.5))
    hits.append(Hit(tmp_path / "lost.png", 0.9))
    words = ["a", "dog", "runs"]
    expected = {
        hit.path: float(
            captioner.read(
                captioner.features(backbone, captioner.see(load_picture(hit.path))), [words]
            )
        )
        for hit in hits[:4]
    }
    found = rerank_hits(hits, "A dog runs.", captioner, backbone, RerankOptions(weight=1))
    assert [hit.path for hit in found[:4]] == sorted(
        expected, key=lambda path: expected[path], reverse=True
    )
    assert found[0].log_prob == pytest.approx(expected[found[0].path], abs=1e-5)
    assert found[4] == hits[4]


def test_reading_agrees_with_describing() -> None:
    """A sentence's words have the same probabilities whether they are read or written."""
    captioner, backbone = small_captioner(), small_backbone()
    features = captioner.features(backbone, torch.cat([photo(224, 1), photo(224, 2)]))
    words = ["the", "cat", "sits", "on", "grass"]
    long = captioner.read(features, [["a"], words, words[:2]])
    options = CaptionOptions(method="greedy", prefix=" ".join(words), max_words=len(words))
    for row, caption in enumerate(captioner.describe(features, options)):
        assert [word.word for word in caption.words] == words
        assert float(long[row, 1]) * (len(words) + 1) == pytest.approx(caption.log_prob, abs=1e-3)
    assert torch.allclose(captioner.read(features[1:], [words])[0], long[1:, 1], atol=1e-5)
    assert captioner.read(features, []).shape == (2, 0)


@pytest.mark.real_weights
def test_searches_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained, but with a captioner that knows each picture's sentence, all is found."""
    rows = ["picture,caption,split"]
    words = ["dog", "cat", "man", "ball", "water", "grass"]
    for number, word in enumerate(words):
        save_picture(to_picture(photo(48, number)), tmp_path / f"{number}.png")
        rows += [f"{number}.png,a {word},dev", f"{number}.png,the {word},dev"]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    torch.manual_seed(0)
    vocabulary = Vocabulary([*SPECIALS, "a", "the", *words])
    model = JointEmbedding(EmbeddingShape(12, 1280, units=8, word_units=8))
    search = Matcher([model], vocabulary, VIEW, record={"seed": 0})
    captioner = small_captioner()
    images = [captioner.see(load_picture(tmp_path / f"{n}.png")) for n in range(6)]
    known = captioner.features(small_backbone(), torch.cat(images)).float()  # (6, P, C)

    def read(features: torch.Tensor, sentences: list[tuple[str, ...]]) -> torch.Tensor:
        own = words[int((known - features.float()).square().sum((1, 2)).argmin())]
        return torch.tensor([[0.0 if own in sentence else -999.0 for sentence in sentences]])

    monkeypatch.setattr(captioner, "read", read)
    runtime = Runtime("cpu", "float32", 1)
    backbones = {"vgg16": load_backbone("vgg16", runtime=runtime), "alexnet": small_backbone()}
    monkeypatch.setattr(retrieval, "load_backbone", backbones.__getitem__)
    cache = tmp_path / "cache"
    found = evaluate_search(search, tmp_path, captioner=captioner, cache=cache)
    assert found is not None and found.reranked is not None
    assert (found.pictures, found.sentences, found.candidates) == (6, 12, 20)
    assert set(found.plain) == set(found.reranked) == {"first half", "second half", "whole"}
    assert found.plain["whole"].text_to_image[0] < 100
    assert found.reranked["whole"].text_to_image[0] == 100
    assert found.reranked["second half"].image_to_text[0] == 100
    for chosen, tried in zip(found.weights, found.tried, strict=True):
        assert tried[chosen] == max(tried.values())
    plain = json.loads(found.to_json())
    assert plain["about"]["search"] == {"seed": 0} and len(plain["plain"]) == 3
    given = evaluate_search(search, tmp_path, captioner=captioner, weight=0.0, cache=cache)
    assert given is not None and given.reranked == given.plain and given.tried == ()
    alone = evaluate_search(search, tmp_path, cache=cache)
    assert alone is not None and alone.reranked is None
    assert evaluate_search(search, tmp_path, should_stop=lambda: True) is None
    with pytest.raises(InputError, match="split test: expected at least two pictures, got 0"):
        evaluate_search(search, tmp_path, "test")


@pytest.mark.real_weights
def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Index, search by picture, by style and by words, with weights trained on two pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    y, x = np.mgrid[:64, :64]
    for name, values in {"stripes": (y // 4) % 2, "dots": ((x // 8) % 2) * ((y // 8) % 2)}.items():
        pixels = np.repeat(values[..., None] * 200, 3, 2).astype(np.uint8)
        for copy in ("", "-again"):  # one in each half of the validation pictures
            save_picture(Image.fromarray(pixels), folder / f"{name}{copy}.png")
    rows = ["picture,caption,split"]
    for split, copies in (("train", [""]), ("dev", ["", "-again"])):
        for name in ("stripes", "dots"):
            rows += [f"{name}{copy}.png,{name} are here,{split}" for copy in copies]
    (folder / "captions.csv").write_text("\n".join(rows))
    weights = str(tmp_path / "words.safetensors")
    argv = ["train-search", str(folder), "-o", weights, "--cache", str(tmp_path / "cache")]
    argv += ["--epochs", "20", "--units", "16", "--word-units", "8", "--dropout", "0"]
    argv += ["--min-count", "1", "--batch", "2", "--learning-rate", "0.02", "--average", "0.5"]
    assert main([*argv, "--precision", "float32", "--quiet"]) == 0
    measured = ["evaluate-search", str(folder), "--cache", str(tmp_path / "cache"), "--quiet"]
    measured += ["--matcher", weights, "--precision", "float32"]
    capsys.readouterr()
    assert main([*measured, "--no-rerank"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[-6:] for row in rows] == 3 * [6 * ["100.0"]]
    assert main([*measured, "--weight", "0.05", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == [0.05, 0.05]
    named = ["--matcher", weights]
    assert main(["index", str(folder), *named, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 4
    for query in (["--like", str(folder / "dots.png")], ["--style", str(folder / "dots.png")],
                  ["--words", "dots are here"]):  # fmt: skip
        sheet = str(tmp_path / "sheet.png")
        assert main(["search", str(folder), *query, *named, "--json", "-o", sheet]) == 0
        hits = json.loads(capsys.readouterr().out)["hits"]
        assert Path(hits[0]["path"]).name.startswith("dots")
        assert (hits[0]["log_prob"] is not None) == ("--words" in query)
    assert main(["search", str(tmp_path), "--words", "dots", *named]) == 1
    assert "stylecap index" in capsys.readouterr().err
    assert main(["search", str(folder)]) == 2
    assert "--like" in capsys.readouterr().err
