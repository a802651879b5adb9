"""From captioned pictures to a captioner and its report, as their commands are used."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

import stylecap
from stylecap.captioning import recipe
from stylecap.captioning.captioner import product_dtype
from stylecap.captioning.captioner_file import load_captioner, save_captioner
from stylecap.captioning.consensus_fit import ConsensusOptions
from stylecap.captioning.evaluation import evaluate_captioner
from stylecap.captioning.matching import EmbeddingShape, JointEmbedding, Matcher
from stylecap.captioning.options import TrainOptions
from stylecap.captioning.page import figure_rows, notes, report_page
from stylecap.captioning.products import has_half
from stylecap.captioning.recipe import join_captioners, train_captioner, with_judges
from stylecap.captioning.train import SHARES
from stylecap.cli import train_captioner as command
from stylecap.cli.main import main
from stylecap.errors import InputError
from stylecap.images import load_picture, to_picture
from stylecap.runtime import Runtime
from tests.small import photo, small_backbone, small_captioner

torch.set_num_threads(1)
SUBJECTS = ("a dog", "a cat", "two men", "the <b>girl</b> on the left")
VERBS = ("runs in the grass", "sits on a red ball", "jumps over water")
FLAGS = [
    *("--backbone", "alexnet", "--units", "16", "--heads", "2", "--dropout", "0"),
    *("--min-count", "1", "--epochs", "2", "--reward-epochs", "1", "--batch", "4"),
    *("--reward-batch", "4", "--warmup", "1", "--device", "cpu"),
]
OPTIONS = TrainOptions(
    backbone="alexnet", units=16, heads=2, dropout=0.0, min_count=1, epochs=2, reward_epochs=1,
    batch=4, reward_batch=4, warmup=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten pictures, two captions each, six of them for training."""
    folder = tmp_path_factory.mktemp("data")
    with open(folder / "captions.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("picture", "caption", "split"))
        for n in range(10):
            to_picture(photo(48, n)).save(folder / f"p{n}.png")
            for k in range(2):
                said = f"{SUBJECTS[n % 4]} {VERBS[(n + k) % 3]}"
                writer.writerow((f"p{n}.png", said, "dev" if n >= 6 else "train"))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["train-captioner", "--data", str(data), "-o", str(folder), *FLAGS]) == 0
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    loaded = load_captioner(path, runtime=Runtime("cpu", "float32", 1))
    return dict(loaded.decoders[0].named_parameters())


def same(a: Path, b: Path, **tolerance: float) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, msg=name, **tolerance)


# training


def test_a_run_leaves_a_captioner_with_its_record(trained: Path, data: Path) -> None:
    assert {path.name for path in trained.iterdir()} >= {
        "captioner.safetensors", "checkpoint.safetensors", "log.csv", "curves.png", "features",
    }  # fmt: skip
    captioner = load_captioner(trained / "captioner.safetensors")
    record = captioner.record
    assert record["data"]["names"] == [data.name]
    assert record["data"]["pictures"] == {"train": 6, "dev": 4}
    assert record["data"]["captions"] == {"train": 12, "dev": 8}
    assert str(data) not in json.dumps(record)
    assert record["options"]["units"] == 16 and record["versions"]["stylecap"]
    assert [row["phase"] for row in record["history"]] == [
        *("words", "words", "reward"),
        *["mean"] * len(SHARES),
    ]
    assert record["weights"]["alexnet"]
    search = record["search"]
    assert search["pictures"] == 2 and len(search["tried"]) == 18
    assert search["best"]["cider"] == max(each["cider"] for each in search["tried"])
    assert captioner.beam == search["best"]["beam"]
    assert captioner.length_penalty == search["best"]["length_penalty"]
    assert load_picture(trained / "curves.png").width > 400


def test_the_command_is_the_function(trained: Path, data: Path, tmp_path: Path) -> None:
    cache = trained / "features"
    options = OPTIONS
    captioner = train_captioner(data, tmp_path, options, cache=cache, device="cpu")
    assert captioner is not None and not (tmp_path / "features").exists()
    same(trained / "captioner.safetensors", tmp_path / "captioner.safetensors")
    seen = stylecap.caption(data / "p7.png", captioner=captioner).text
    loaded = load_captioner(tmp_path / "captioner.safetensors", runtime=captioner.runtime)
    assert stylecap.caption(data / "p7.png", captioner=loaded).text == seen


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train_captioner(data, folder, OPTIONS, backbone=small_backbone())
    return folder / "captioner.safetensors"


@pytest.mark.parametrize("stop", [1, 5, 8, 12])
def test_interrupted_and_repeated_equals_uninterrupted(
    stop: int, uninterrupted: Path, data: Path, tmp_path: Path
) -> None:
    """Stopped in features, in the first passes, in the rewarded one, and in choosing the beam."""
    asked = iter(range(1000))
    stopped = train_captioner(
        data, tmp_path, OPTIONS, backbone=small_backbone(),
        should_stop=lambda: next(asked) >= stop,
    )  # fmt: skip
    result = tmp_path / "captioner.safetensors"
    assert stopped is None and not result.exists()
    assert train_captioner(data, tmp_path, OPTIONS, backbone=small_backbone()) is not None
    same(uninterrupted, result, atol=0, rtol=0)
    searches = [load_captioner(path).record["search"] for path in (uninterrupted, result)]
    assert searches[0] == searches[1]


def test_ctrl_c_saves_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = iter(range(1000))
    monkeypatch.setattr(command.Interruption, "__call__", lambda _: next(asked) >= 5)
    argv = ["train-captioner", "--data", str(data), "-o", str(tmp_path), *FLAGS]
    assert main(argv) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_without_matplotlib_it_says_so_and_goes_on(
    data: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    argv = ["train-captioner", "--data", str(data), "-o", str(tmp_path), *FLAGS]
    assert main([*argv, "--cache", str(trained / "features")]) == 0
    told = capsys.readouterr()
    assert "stylecap[train]" in told.err and not (tmp_path / "curves.png").exists()
    assert re.search(r"captioner\.safetensors: \d+ words, beam", told.out)


def _in_process(rank: int, data: Path, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    argv = ["train-captioner", "--data", str(data), "-o", str(folder / "two"), *FLAGS]
    with open(folder / f"told{rank}", "w") as told:
        sys.stdout = sys.stderr = told
        code = main(argv)
    assert code == 0


def test_two_processes_as_torchrun_starts_them(data: Path, trained: Path, tmp_path: Path) -> None:
    """They learn what one learns, and only the first one speaks."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    mp.spawn(_in_process, args=(data, tmp_path, port), nprocs=2)
    assert "captioner.safetensors" in (tmp_path / "told0").read_text()
    assert (tmp_path / "told1").read_text() == ""
    assert len(list((tmp_path / "two" / "features").glob("*.npy"))) == 3
    with open(tmp_path / "two" / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 + len(SHARES)
    with open(trained / "log.csv", newline="") as stream:
        alone = next(csv.DictReader(stream))
    assert float(rows[0]["loss"]) == pytest.approx(float(alone["loss"]), rel=1e-3)


def refused(capsys: pytest.CaptureFixture[str], code: int, *argv: Any) -> str:
    """The one line that a command ends with."""
    assert main([str(word) for word in argv]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("stylecap: error: ")
    return lines[-1]


def test_refusals(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("train-captioner", "-o", tmp_path / "out", "--device", "cpu")
    assert "--data" in refused(capsys, 2, *run)
    assert "divisor" in refused(capsys, 2, *run, "--data", data, "--units", 10)
    assert "nowhere" in refused(capsys, 1, *run, "--data", tmp_path / "nowhere.csv")
    only = tmp_path / "only.csv"
    only.write_text(f"picture,caption,split\n{data}/p1.png,a dog,train\n")
    assert "got 1 and 0" in refused(capsys, 1, *run, "--data", only)
    only.write_text("picture,caption,split\ngone.png,a dog,train\ngone.png,a dog,dev\n")
    assert "--pictures" in refused(capsys, 1, *run, "--data", only)
    assert "min_count" in refused(capsys, 2, *run, "--data", data, "--min-count", 99)
    other = ("train-captioner", "--data", data, "-o", trained, *FLAGS)
    assert "epochs" not in refused(capsys, 1, *other, "--units", 32)
    both = tmp_path / "both.safetensors"
    alone = ("train-captioner", "--ensemble", trained / "captioner.safetensors", "-o", both)
    assert "joins nothing" in refused(capsys, 2, *alone)
    lost = ("train-captioner", "--ensemble", *alone[2:3], *alone[2:3], "-o", tmp_path / "no" / "b")
    assert "does not exist" in refused(capsys, 1, *lost)
    file = tmp_path / "file"
    file.write_text("")
    assert "file" in refused(capsys, 1, "train-captioner", "--data", data, "-o", file, *FLAGS)


def test_of_mirrored_pictures_left_and_right_are_expected_swapped(
    trained: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(recipe, "fit_consensus", lambda *given, **more: asked.append(given))
    captioner = load_captioner(trained / "captioner.safetensors")
    finished = recipe.finish_captioner(captioner, data, cache=trained / "features")
    assert finished is not None and finished.consensus is None
    ((summaries, captions, *_),) = asked
    assert [len(each) for each in (*summaries, *captions)] == [6] * 4
    said, mirrored = ([[" ".join(words) for words in group] for group in each] for each in captions)
    swapped = [[text.replace("on the left", "on the right") for text in group] for group in said]
    assert mirrored == swapped != said
    assert ((summaries[0] - summaries[1]).abs().amax(1) > 1e-4).all()


# ensembles


@pytest.mark.parametrize(
    ("device", "precision", "capability", "expected"),
    [
        ("cpu", "bfloat16", "AVX512", torch.int8),
        ("cpu", "bfloat16", "AVX2", torch.bfloat16),
        ("cpu", "float32", "AVX512", torch.float16 if has_half() else torch.float32),
        ("cuda", "float32", "AVX512", torch.float32),
        ("cuda", "bfloat16", "AVX512", torch.bfloat16),
    ],
)
def test_products_are_rounded_where_that_is_faster(
    device: str,
    precision: str,
    capability: str,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert product_dtype(Runtime(device, precision, 1)) == expected


def test_an_ensemble_averages(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, both = trained / "captioner.safetensors", tmp_path / "both.safetensors"
    other = tmp_path / "other"
    argv = ["train-captioner", "--data", data, "-o", other, *FLAGS, "--seed", 1, "--quiet"]
    assert main([*map(str, argv), "--cache", str(trained / "features")]) == 0
    second = other / "captioner.safetensors"
    join = ["train-captioner", "--ensemble", first, second, "-o", both, "--device", "cpu"]
    assert main([*map(str, join), "--data", str(data), "--quiet"]) == 0
    joined = load_captioner(both)
    assert len(joined.decoders) == 2 and joined.record["search"]["pictures"] == 2
    assert len(joined.record["ensemble"]) == 2
    twice = join_captioners([small_captioner(), small_captioner()])
    features = twice.features(small_backbone(), photo(224, 1))
    single = small_captioner().describe(features)[0]
    assert twice.describe(features)[0].log_prob == pytest.approx(single.log_prob, abs=1e-4)
    with pytest.raises(InputError, match="same words"):
        join_captioners([joined, small_captioner()])
    with pytest.raises(InputError, match="same way"):
        other_view = small_captioner()
        other_view.view = stylecap.captioning.features.View("alexnet", ("relu5",), 6)
        join_captioners([small_captioner(), other_view])
    capsys.readouterr()


def test_a_matcher_becomes_part_of_a_captioner(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train-search`, then the training that is over, again with its matcher; both describe."""
    cache, matcher = str(trained / "features"), str(tmp_path / "matcher.safetensors")
    learn = ["train-search", str(data / "captions.csv"), "-o", matcher, "--cache", cache]
    learn += ["--backbone", "alexnet", "--epochs", "2", "--units", "16", "--word-units", "8"]
    learn += ["--min-count", "1", "--batch", "4", "--device", "cpu", "--quiet"]
    assert main(learn) == 0
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    argv = ["train-captioner", "--data", str(data), "-o", str(folder), *FLAGS]
    assert "--backbone vgg16" in refused(
        capsys, 1, *argv, "--backbone", "vgg16", "--matcher", matcher
    )
    assert main([*argv, "--matcher", matcher]) == 0
    told = capsys.readouterr().out
    assert re.search(r"captioner\.safetensors: \d+ words, beam \d, .*, match weight \d", told)
    captioner, before = (
        load_captioner(each / "captioner.safetensors") for each in (folder, trained)
    )
    assert captioner.matcher is not None and before.matcher is None
    assert captioner.matcher.record["options"]["units"] == 16
    for name, weight in before.decoders[0].state_dict().items():
        assert torch.equal(captioner.decoders[0].state_dict()[name], weight)
    tried = captioner.record["search"]["tried"]
    assert len({each["match_weight"] for each in tried}) == 7
    both = str(folder / "captioner.safetensors")
    text = stylecap.caption(data / "p7.png", captioner=captioner).text
    assert main(["caption", str(data / "p7.png"), "--captioner", both, "--quiet"]) == 0
    assert capsys.readouterr().out.strip().endswith(f"\t{text}")
    given = evaluate_captioner(captioner, data, cache=cache, meteor=False)
    assert given is not None
    assert given.about["options"]["match_weight"] == captioner.match_weight
    assert text in [each.caption for each in given.described]
    joined = tmp_path / "joined.safetensors"
    join = ["train-captioner", "--ensemble", both, both, "--matcher", matcher, "-o", str(joined)]
    assert main([*join, "--data", str(data), "--cache", cache, "--device", "cpu", "--quiet"]) == 0
    assert load_captioner(joined).matcher is not None
    assert "needs --data" in refused(capsys, 2, *join)


def test_a_single_captioner_is_finished(
    data: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What people write is learned, the own matcher kept, the search chosen anew."""
    few = partial(ConsensusOptions, least=2)
    monkeypatch.setattr("stylecap.captioning.consensus_fit.ConsensusOptions", few)
    before = load_captioner(trained / "captioner.safetensors")
    shape = EmbeddingShape(len(before.vocabulary), before.decoders[0].shape.channels, 16, 8)
    matcher = Matcher([JointEmbedding(shape)], before.vocabulary, before.view, record={"own": 1})
    save_captioner(with_judges(before, matcher=matcher), tmp_path / "a.safetensors")
    flags = ["--data", str(data), "--cache", str(trained / "features"), "--device", "cpu"]
    finish = ["train-captioner", "--ensemble", str(tmp_path / "a.safetensors"), *flags]
    assert main([*finish, "-o", str(tmp_path / "b.safetensors")]) == 0
    assert "b.safetensors: " in capsys.readouterr().out
    after = load_captioner(tmp_path / "b.safetensors")
    assert after.matcher is not None and after.matcher.record == {"own": 1}
    assert after.consensus is not None and after.consensus.record["seen"] == 12
    search = after.record["search"]
    assert len({each["consensus_weight"] for each in search["tried"]}) == 5
    assert after.settled().consensus_weight == search["best"]["consensus_weight"]
    torch.testing.assert_close(
        after.decoders[0].embedding.weight, before.decoders[0].embedding.weight
    )


def test_where_nothing_can_be_joined_nothing_is_written(
    data: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = trained / "captioner.safetensors"
    lone = ["train-captioner", "--data", data, "-o", tmp_path / "a", "--matcher", one]
    assert "there is no matcher in it" in refused(capsys, 1, *lone)
    monkeypatch.setattr(command.Interruption, "__call__", lambda _: True)
    ensemble = ["train-captioner", "--ensemble", one, one, "-o", tmp_path / "b.safetensors"]
    assert main([*map(str, ensemble), "--data", str(data), "--quiet"]) == 130
    assert not (tmp_path / "b.safetensors").exists()


# evaluation


class _Page(HTMLParser):
    """What a page would load, and the tags and text in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(data: Path, trained: Path) -> Iterator[Any]:
    captioner = load_captioner(
        trained / "captioner.safetensors", runtime=Runtime("cpu", "float32", 1)
    )
    yield evaluate_captioner(captioner, data, cache=trained / "features")


def test_a_report_holds_every_figure(report: Any) -> None:
    names = {
        "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR (nltk)", "ROUGE-L", "CIDEr-D", "novel",
        "length ratio", "words used",
    }  # fmt: skip
    for figures in (report.whole, report.first, report.second, report.shuffled):
        assert set(figures) == names
    assert report.whole["CIDEr-D"].low <= report.whole["CIDEr-D"].value
    assert report.human["length ratio"] == pytest.approx(1, abs=0.2)
    assert report.sentence in {f"{s} {v}".replace("<b>", "b ").replace("</b>", " b")
                               for s in SUBJECTS for v in VERBS}  # fmt: skip
    means = [figures["CIDEr-D"].value for figures in (report.first, report.second)]
    assert np.mean(means) == pytest.approx(report.whole["CIDEr-D"].value)
    assert [each.path.name for each in report.described] == [f"p{n}.png" for n in range(6, 10)]
    ciders = [each.cider for each in report.described]
    assert np.mean(ciders) == pytest.approx(report.whole["CIDEr-D"].value)
    head, rows = figure_rows(report)
    assert all(len(row) == len(head) for row in rows) and len(rows) == len(names)
    assert any("METEOR" in note and "WordNet" in note for note in notes(report))


def test_a_captioner_that_knows_the_answers(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its score is perfect, and falls when pictures are exchanged: the measure sees pictures."""
    pictures = [each for each in recipe.read_all(data) if each.split == "dev"]
    answers = [list(each.captions[0]) for each in pictures]
    monkeypatch.setattr("stylecap.captioning.evaluation.describe_all", lambda *_: answers)
    found = evaluate_captioner(small_captioner(), data, backbone=small_backbone(), meteor=False)
    assert found is not None
    assert found.whole["BLEU-4"].value == pytest.approx(1)
    assert found.shuffled["CIDEr-D"].value < 0.6 * found.whole["CIDEr-D"].value
    for figures in (found.whole, found.human, found.constant, found.shuffled):
        assert figures is not None and "METEOR (nltk)" not in figures
    assert found.whole["novel"].value < 1


def test_a_stop_is_heard_where_all_features_are_kept(data: Path, tmp_path: Path) -> None:
    """Nothing is left to be seen; it ends before it describes."""
    evaluate = partial(
        evaluate_captioner, small_captioner(), data, backbone=small_backbone(), cache=tmp_path,
        meteor=False,
    )  # fmt: skip
    assert evaluate() is not None
    assert evaluate(should_stop=lambda: True) is None


def test_the_page_is_self_contained_and_escaped(report: Any) -> None:
    page = _Page()
    page.feed(report_page(report))
    assert page.loads and all(load.startswith("data:") for load in page.loads)
    assert "b" not in page.tags and "script" not in page.tags
    hostile = stylecap.captioning.evaluation.Described(
        Path("<script>.png"), "<i>a</i> \"dog\" 'runs'", ("<script>alert(1)</script>",), 0.5
    )
    object.__setattr__(report, "described", [*report.described, hostile])
    page = _Page()
    page.feed(report_page(report))
    assert "script" not in page.tags and "i" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    object.__setattr__(report, "described", report.described[:-1])


def test_the_command_prints_and_writes(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "evaluate-captioner", "--data", data, "--captioner", trained / "captioner.safetensors",
        "--device", "cpu", "--precision", "float32", "--no-meteor", "--cache", tmp_path / "cache",
    ]  # fmt: skip
    assert main([*map(str, argv), "--report", str(tmp_path / "report")]) == 0
    told = capsys.readouterr()
    assert re.search(r"^CIDEr-D +\d+\.\d +\d+\.\d to \d+\.\d", told.out, re.MULTILINE)
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["split"] == "dev" and len(written["described"]) == 4
    assert str(data) not in json.dumps(written)
    assert (tmp_path / "report" / "report.html").stat().st_size > 5000
    assert main([*map(str, argv), "--json", "--quiet", "--beam", "2"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["about"]["options"]["beam"] == 2 and told.err == ""
    error = refused(capsys, 1, *argv, "--split", "test")
    assert "dev, train" in error
    refused(capsys, 2, *argv, "--split", "half")
