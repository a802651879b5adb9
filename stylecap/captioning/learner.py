"""What learns: a decoder's weights, their moving average, the best so far, and the optimiser."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.objective import CaptionLoss, Judge
from stylecap.captioning.options import TrainOptions

#: Name of each of the decoder's weights to one number or tensor of it.
Weights = dict[str, Tensor]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Learner:
    """A decoder in training, in one process or in every one of several under ``torchrun``.

    Attributes:
        rank: of this process.
        world: number of processes.
        averaged: exponential moving average of the weights; what is validated.
        best: the average that scored best in this phase.
        start: what the rewards began from.
    """

    def __init__(self, shape: DecoderShape, options: TrainOptions, device: str) -> None:
        self.shape, self.options, self.device = shape, options, torch.device(device)
        self.distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.distributed else 0
        self.world = dist.get_world_size() if self.distributed else 1
        torch.manual_seed(options.seed)
        self._decoder = CaptionDecoder(shape).to(self.device)
        loss = CaptionLoss(
            self._decoder,
            label_smoothing=options.label_smoothing,
            samples=options.reward_samples,
            top_k=options.reward_top_k,
            max_words=options.max_words,
        )
        self._loss: nn.Module = DistributedDataParallel(loss) if self.distributed else loss
        self.averaged = {name: weight.clone() for name, weight in self._weights().items()}
        self.best = {name: weight.clone() for name, weight in self._weights().items()}
        self.start = {name: weight.clone() for name, weight in self._weights().items()}
        self._optimizer = self._fresh_optimizer()

    def update(
        self,
        features: np.ndarray,
        tokens: Tensor | None,
        judge: Judge | None,
        *,
        learning_rate: float,
        decay: float,
        present: bool = True,
    ) -> tuple[float, float]:
        """Follow the gradient once; random numbers are those of the seed set before.

        Args:
            features: (B, P, C) of this process's pictures.
            tokens: (B, N, T+1) ids of their captions, or None.
            judge: of captions drawn, where there are no tokens.
            learning_rate: of Adam.
            decay: of the moving average.
            present: False for a process that has no picture left and only keeps the others
                company; what it was given does not count.
        Returns:
            The loss or, with a judge, the reward, summed over all processes, and the number of
            words, or of pictures, that it is the sum of.
        """
        self._decoder.train()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"
        ):
            loss, words, reward = self._loss(
                torch.from_numpy(features).to(self.device),
                None if tokens is None else tokens.to(self.device),
                judge,
            )
        loss = loss * float(present)
        pictures = torch.tensor(float(len(features)), device=self.device)
        sums = torch.stack([loss.detach(), words.float(), reward, pictures]) * float(present)
        if self.distributed:
            dist.all_reduce(sums)
        total, count, rewards, seen = sums.tolist()
        self._optimizer.zero_grad(set_to_none=True)
        (loss * (self.world / max(count, 1.0))).backward()
        nn.utils.clip_grad_norm_(self._decoder.parameters(), self.options.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        for name, weight in self._weights().items():
            self.averaged[name].lerp_(weight, 1 - decay)
        return (total, count) if judge is None else (rewards, seen)

    def anyone(self, says: bool) -> bool:
        """Whether any process says so."""
        if not self.distributed:
            return says
        said = torch.tensor(float(says), device=self.device)
        dist.all_reduce(said)
        return bool(said > 0)

    def decoder_of(self, weights: Weights) -> CaptionDecoder:
        """A decoder of its own, not in training, with ``averaged`` or ``best``."""
        decoder = CaptionDecoder(self.shape)
        decoder.load_state_dict(weights)
        return decoder.eval()

    def keep(self) -> None:
        """The average is the best so far."""
        _copy(self.averaged, self.best)

    def restart(self) -> None:
        """Go on from the best weights, with a fresh optimiser."""
        _copy(self.best, self.start)
        _copy(self.best, self._weights())
        _copy(self.best, self.averaged)
        self._optimizer = self._fresh_optimizer()

    def arrive(self) -> None:
        """Learn no more: the best weights are the end."""
        _copy(self.best, self._weights())

    def mix(self, share: float) -> None:
        """The average becomes the mean of start and end, of which the end counts ``share``."""
        for name, weight in self._weights().items():
            torch.lerp(self.start[name], weight, share, out=self.averaged[name])

    def tensors(self) -> Weights:
        """All that `restore` needs, each named ``group/weight``."""
        groups = {
            "weights": self._weights(),
            "averaged": self.averaged,
            "best": self.best,
            "start": self.start,
        }
        names = list(self._weights())
        moments = self._optimizer.state_dict()["state"]
        for key in _MOMENTS:
            groups[key] = {names[index]: state[key] for index, state in moments.items()}
        return {
            f"{group}/{name}": tensor
            for group, weights in groups.items()
            for name, tensor in weights.items()
        }

    def restore(self, tensors: Weights) -> None:
        """Become the one that these `tensors` were taken from."""
        groups: dict[str, Weights] = {}
        for name, tensor in tensors.items():
            group, _, weight = name.partition("/")
            groups.setdefault(group, {})[weight] = tensor.to(self.device)
        _copy(groups["weights"], self._weights())
        _copy(groups["averaged"], self.averaged)
        _copy(groups["best"], self.best)
        _copy(groups["start"], self.start)
        state = self._optimizer.state_dict()
        for index, name in enumerate(self._weights()):
            if name in groups.get("step", {}):
                state["state"][index] = {key: groups[key][name] for key in _MOMENTS}
        self._optimizer.load_state_dict(state)

    def _weights(self) -> Weights:
        return {name: weight.detach() for name, weight in self._decoder.named_parameters()}

    def _fresh_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(self._decoder.parameters(), lr=0.0, betas=(0.9, 0.98))


def _copy(source: Weights, target: Weights) -> None:
    for name, weight in target.items():
        weight.copy_(source[name])
