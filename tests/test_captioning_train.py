from __future__ import annotations

import csv
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.objective import CaptionLoss, pad_tokens
from stylecap.captioning.options import TrainOptions
from stylecap.captioning.run_folder import CHECKPOINT, LOG, read_checkpoint
from stylecap.captioning.train import SHARES, Corpus, describe_features, train
from stylecap.captioning.vocabulary import BOS, EOS, PAD
from stylecap.errors import InputError, OptionError

torch.set_num_threads(1)
SENTENCES = (
    "a dog runs on the grass",
    "two men play ball in front of a wall",
    "a cat sleeps",
    "the girl on the left jumps",
    "birds fly over the water at night",
    "a child in a pink dress climbs up the stairs",
    "a man's hat is red",
    "people walk",
)
TINY = TrainOptions(
    units=32, heads=4, dropout=0.0, min_count=1, epochs=100, reward_epochs=0, batch=8, warmup=5,
    learning_rate=1e-2, label_smoothing=0.0, average=0.0, patience=100, save_every=1000,
)  # fmt: skip


def corpus(*, mirrored: bool = False) -> Corpus:
    draw = np.random.default_rng(0)
    features = np.abs(draw.normal(size=(8, 4, 16))).astype(np.float16)
    other = np.abs(draw.normal(size=(8, 4, 16))).astype(np.float16) if mirrored else None
    return Corpus(features, [[sentence.split()] for sentence in SENTENCES], other)


@pytest.mark.parametrize("decoder", ["attentive", "plain"])
def test_overfits_eight_pairs_to_the_letter(decoder: str, tmp_path: Path) -> None:
    pairs = corpus()
    trained = train(pairs, pairs, tmp_path, replace(TINY, decoder=decoder))
    said = describe_features(trained.decoder, trained.vocabulary, pairs.features)
    assert [" ".join(words) for words in said] == list(SENTENCES)
    assert trained.finished
    shuffled = np.roll(pairs.features, 1, axis=0)
    assert describe_features(trained.decoder, trained.vocabulary, shuffled) != said


def test_padding_gets_no_gradient() -> None:
    torch.manual_seed(0)
    decoder = CaptionDecoder(DecoderShape(words=9, channels=6, positions=4, units=8, heads=2))
    loss = CaptionLoss(decoder.eval(), label_smoothing=0.1)
    features = torch.rand(2, 4, 6)
    short = pad_tokens([[[4, 5]], [[6, 7, 8]]], 20)
    long = torch.cat([short, torch.full((2, 1, 6), PAD)], dim=2)
    extra = torch.cat([long, torch.full((2, 1, long.shape[2]), PAD)], dim=1)
    gradients = []
    for tokens in (short, long, extra):
        decoder.zero_grad()
        loss(features, tokens)[0].backward()
        assert decoder.embedding.weight.grad is not None
        assert not decoder.embedding.weight.grad[PAD].any()
        gradients.append({n: p.grad.clone() for n, p in decoder.named_parameters()})
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, msg=name)


def test_loss_by_hand() -> None:
    """An untrained output that ignores everything gives log(V-2) for every word."""
    decoder = CaptionDecoder(DecoderShape(words=9, channels=6, positions=4, units=8, heads=2))
    with torch.no_grad():
        decoder.embedding.weight.zero_()
    tokens = pad_tokens([[[4, 5], [6]]], 20)
    loss, words, reward = CaptionLoss(decoder.eval())(torch.rand(1, 4, 6), tokens)
    assert loss.item() == pytest.approx(5 * np.log(7), rel=1e-5)
    assert (words.item(), reward.item()) == (5, 0)


def test_policy_gradient_by_hand() -> None:
    """Equal rewards teach nothing; different ones raise what was better."""
    torch.manual_seed(0)
    decoder = CaptionDecoder(DecoderShape(words=9, channels=6, positions=4, units=8, heads=2))
    objective = CaptionLoss(decoder, samples=3, max_words=4)
    drawn: list[list[tuple[int, ...]]] = []

    def judge(captions: list[list[tuple[int, ...]]]) -> torch.Tensor:
        drawn.extend(captions)
        return torch.tensor([[1.0, 0.0, 0.5]])

    features = torch.rand(1, 4, 6)
    objective(features, judge=lambda captions: torch.ones(1, 3))[0].backward()
    assert not any(p.grad is not None and p.grad.any() for p in decoder.parameters())
    loss, words, reward = objective(features, judge=judge)
    assert words.item() == sum(min(len(tokens) + 1, 5) for tokens in drawn[0])
    assert reward.item() == pytest.approx(0.5)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())
    with pytest.raises(ValueError, match="neither"):
        objective(features)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top_k", [2, 0])
def test_words_that_are_never_drawn_are_not_taught(seed: int, top_k: int) -> None:
    """Neither the unknown word nor what is not among the two best; the others share what is won.

    At the first place, where no caption can end, the second best is another word.
    """
    torch.manual_seed(seed)
    decoder = CaptionDecoder(DecoderShape(words=9, channels=6, positions=4, units=8, heads=2))
    with torch.no_grad():
        decoder.embedding.weight.zero_()  # scores are the bias alone
        decoder.output_bias.copy_(torch.tensor([1.0, 5.0, 2.0, 0.0, -1.0, -2.0, -3.0]))
    objective = CaptionLoss(decoder, samples=4, top_k=top_k, max_words=6)
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.2]])
    objective(torch.rand(1, 4, 6), judge=lambda captions: rewards)[0].backward()
    assert decoder.output_bias.grad is not None
    end, unknown, first, second, *others = decoder.output_bias.grad.tolist()
    assert unknown == pytest.approx(0, abs=1e-5) and abs(end) > 1e-3
    if top_k:
        assert others == pytest.approx([0] * 3, abs=1e-5)
    assert end + first + second + sum(others) == pytest.approx(0, abs=1e-5)


def test_pad_tokens() -> None:
    tokens = pad_tokens([[[4, 5, 6], [7]], [[8]]], max_words=2)
    assert tokens.tolist() == [
        [[BOS, 4, 5], [BOS, 7, EOS]],
        [[BOS, 8, EOS], [BOS, PAD, PAD]],
    ]


@pytest.mark.parametrize("stops", [[3], [1, 4, 6]])
def test_killed_and_continued_equals_uninterrupted(stops: list[int], tmp_path: Path) -> None:
    """Stops in the middle of both phases; dropout, averaging and sampling all at work."""
    options = replace(
        TINY, epochs=3, reward_epochs=2, batch=3, reward_batch=3, dropout=0.4, average=0.9,
        label_smoothing=0.1, learning_rate=3e-3,
    )  # fmt: skip
    pairs = corpus(mirrored=True)
    whole = train(pairs, pairs, tmp_path / "whole", options)

    for stop in stops:
        steps = iter(range(1000))
        stopped = train(
            pairs, pairs, tmp_path / "parts", options,
            should_stop=lambda steps=steps, stop=stop: next(steps) >= stop,
        )  # fmt: skip
        assert not stopped.finished
    parts = train(pairs, pairs, tmp_path / "parts", options)

    assert parts.finished and len(parts.history) == len(whole.history) == 5 + len(SHARES)
    for mine, theirs in zip(parts.history, whole.history, strict=True):
        assert {**asdict(mine), "seconds": 0} == {**asdict(theirs), "seconds": 0}
    first = read_checkpoint(tmp_path / "whole" / CHECKPOINT)[1]
    second = read_checkpoint(tmp_path / "parts" / CHECKPOINT)[1]
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_rewards_may_follow_later_as_if_they_had_been_asked_for_at_once(tmp_path: Path) -> None:
    pairs, whole = corpus(), replace(TINY, epochs=2, reward_epochs=2, reward_batch=3)
    train(pairs, pairs, tmp_path / "whole", whole)
    first = replace(whole, reward_epochs=0, reward_batch=4)
    assert train(pairs, pairs, tmp_path / "parts", first).finished
    assert len(train(pairs, pairs, tmp_path / "parts", first).history) == 2  # again: no change
    train(pairs, pairs, tmp_path / "parts", whole)
    ours, theirs = (read_checkpoint(tmp_path / d / CHECKPOINT)[1] for d in ("parts", "whole"))
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]), name
    with pytest.raises(InputError, match="reward_batch"):
        train(pairs, pairs, tmp_path / "parts", replace(whole, reward_batch=5))


def test_log_has_a_row_for_every_pass(tmp_path: Path) -> None:
    pairs = corpus()
    trained = train(pairs, pairs, tmp_path, replace(TINY, epochs=2, reward_epochs=1))
    with open(tmp_path / LOG, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["words", "words", "reward", *["mean"] * len(SHARES)]
    assert float(rows[1]["cider"]) == trained.history[1].cider


def test_rewards_that_are_cut_short_are_averaged_all_the_same(tmp_path: Path) -> None:
    pairs = corpus()
    options = replace(TINY, epochs=2, reward_epochs=5, reward_learning_rate=5e-3)
    steps = iter(range(1000))
    assert not train(pairs, pairs, tmp_path, options, should_stop=lambda: next(steps) >= 4).finished
    trained = train(pairs, pairs, tmp_path, replace(options, reward_epochs=0))
    phases = [scores.phase for scores in trained.history]
    assert phases == ["words", "words", "reward", "reward", *["mean"] * len(SHARES)]


def test_a_stop_is_heard_between_the_means(tmp_path: Path) -> None:
    pairs, options = corpus(), replace(TINY, epochs=1, reward_epochs=1)
    asked = iter(range(1000))
    stopped = train(pairs, pairs, tmp_path, options, should_stop=lambda: next(asked) >= 4)
    assert [scores.phase for scores in stopped.history] == ["words", "reward", "mean", "mean"]
    assert not stopped.finished
    trained = train(pairs, pairs, tmp_path, options)
    assert len(trained.history) == 2 + len(SHARES) and trained.finished


def test_the_best_mean_of_before_and_after_the_rewards_is_kept(tmp_path: Path) -> None:
    pairs = corpus()
    options = replace(TINY, epochs=6, reward_epochs=3, reward_learning_rate=5e-3, patience=1)
    trained = train(pairs, pairs, tmp_path, options)
    means = [scores for scores in trained.history if scores.phase == "mean"]
    for phase, mean in (("words", means[0]), ("reward", means[-1])):  # the ends are among them
        best = max(scores.cider for scores in trained.history if scores.phase == phase)
        assert mean.cider == best
    tensors = read_checkpoint(tmp_path / CHECKPOINT)[1]
    share = SHARES[np.argmax([scores.cider for scores in means])]
    assert not torch.equal(tensors["start/fuse.weight"], tensors["weights/fuse.weight"])
    for name, weight in trained.decoder.state_dict().items():
        start, end = tensors[f"start/{name}"], tensors[f"weights/{name}"]
        torch.testing.assert_close(weight, (1 - share) * start + share * end)


def test_reward_raises_the_reward(tmp_path: Path) -> None:
    """Captions drawn after some steps of self-critical training score higher than before."""
    pairs = corpus()
    options = replace(TINY, epochs=20, reward_epochs=60, reward_learning_rate=5e-3)
    trained = train(pairs, pairs, tmp_path, options)
    rewards = [scores.loss for scores in trained.history if scores.phase == "reward"]
    assert np.mean(rewards[-10:]) > np.mean(rewards[:10]) + 0.3


def test_stops_early(tmp_path: Path) -> None:
    pairs = corpus()
    options = replace(TINY, epochs=30, learning_rate=0.0, patience=2)
    assert len(train(pairs, pairs, tmp_path, options).history) == 3


def test_refuses_other_options_and_other_files(tmp_path: Path) -> None:
    pairs = corpus()
    options = replace(TINY, epochs=1)
    train(pairs, pairs, tmp_path, options)
    with pytest.raises(InputError, match="units=32"):
        train(pairs, pairs, tmp_path, replace(options, units=16))
    with pytest.raises(InputError, match="epochs=1, now 2"):  # they are over
        train(pairs, pairs, tmp_path, replace(options, epochs=2))
    narrow = Corpus(pairs.features[..., :3], pairs.captions)
    with pytest.raises(InputError, match="another corpus"):
        train(narrow, narrow, tmp_path, options)
    fewer = Corpus(pairs.features[:7], pairs.captions[:7])
    with pytest.raises(InputError, match="another corpus"):
        train(fewer, fewer, tmp_path, options)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        train(pairs, pairs, tmp_path, options)
    with pytest.raises(InputError, match="corpus"):
        Corpus(pairs.features, pairs.captions[:3])
    with pytest.raises(OptionError, match="heads"):
        TrainOptions(units=10, heads=4)


def _train_in_process(rank: int, folder: Path, options: TrainOptions) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    pairs = corpus()
    train(pairs, pairs, folder / "two", options)
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Batches of 3 leave a last one of 2 pictures, and 1 process without its share of words."""
    options = replace(TINY, epochs=2, batch=3, learning_rate=1e-3)
    mp.spawn(_train_in_process, args=(tmp_path, options), nprocs=2)
    pairs = corpus()
    train(pairs, pairs, tmp_path / "one", options)
    header_one, one = read_checkpoint(tmp_path / "one" / CHECKPOINT)
    header_two, two = read_checkpoint(tmp_path / "two" / CHECKPOINT)
    assert header_one["position"]["step"] == header_two["position"]["step"] == 6
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-4, rtol=1e-3, msg=name)
