"""Optimise an image over scales, from coarse to fine.

Source: Gatys et al. 2016, section 2.3 (the optimisation), and 2017, section 6 (coarse to
fine). After every step the image is put back into [0, 1]: what is optimised is what will be
saved, while an image left free loses a tenth of its gain when it is clipped at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from stylecap.backbone import Backbone, check_layers, smallest_side
from stylecap.errors import InputError, OptionError
from stylecap.images import fit_long_side, resize_image
from stylecap.progress import OnProgress, ShouldStop
from stylecap.runtime import Runtime
from stylecap.style.cache import StyleCache, image_sha256
from stylecap.style.checkpoint import Checkpoint, OnCheckpoint
from stylecap.style.control import (
    carry_guides,
    join_luminance,
    luminance,
    match_color,
    match_luminance,
)
from stylecap.style.descent import Run, Subject, Transfer
from stylecap.style.memory import check_memory, memory_budget, plan_memory
from stylecap.style.objective import Objective, StyleTarget, style_grams
from stylecap.style.optimizers import LBFGS, Adam, Optimizer
from stylecap.style.options import StyleOptions
from stylecap.style.strips import Strips

_SHORTEST_SIDE = 64  # px; a scale below it shows nothing of content or style
_FINE_SHARE = 0.8  # strength at which scales are mixed
_NOISE = 0.1  # deviation of the noise that a painting may start from


def transfer_style(
    content: Tensor,
    styles: Sequence[Tensor],
    options: StyleOptions,
    backbone: Backbone,
    *,
    init_image: Tensor | None = None,
    regions: Tensor | None = None,
    cache: StyleCache | None = None,
    resume: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    should_stop: ShouldStop | None = None,
) -> Transfer:
    """Paint the content in the manner of the styles.

    Args:
        content: as in `Subject`.
        styles: as in `transfer_together`.
        options: as in `transfer_together`.
        backbone: as in `transfer_together`.
        init_image: as in `Subject`.
        regions: as in `transfer_together`.
        cache: as in `transfer_together`.
        resume: as in `Subject`.
        on_progress: as in `Subject`.
        on_checkpoint: as in `Subject`.
        should_stop: as in `transfer_together`.
    Raises:
        As `transfer_together`.
    """
    subject = Subject(content, init_image, resume, on_progress, on_checkpoint)
    (done,) = transfer_together(
        [subject], styles, options, backbone, regions=regions, cache=cache, should_stop=should_stop
    )
    return done


def transfer_together(
    subjects: Sequence[Subject],
    styles: Sequence[Tensor],
    options: StyleOptions,
    backbone: Backbone,
    *,
    regions: Tensor | None = None,
    cache: StyleCache | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Transfer]:
    """Paint several contents in the manner of the same styles, as one batch.

    Each goes the way it would go alone, to within rounding.

    Args:
        subjects: of one size; those to resume all after the same step.
        styles: each (1, 3, H', W'), large enough for the style scale.
        options: all but size, which the contents have.
        backbone: of the options' name.
        regions: (R, 1, H, W) zeros and ones, one region for each style, or None.
        cache: shared with other transfers; the styles' Gram matrices are looked up there.
        should_stop: asked before every step.
    Returns:
        One for each subject.
    Raises:
        OptionError: options that contradict each other or the inputs.
        InputError: the contents are too small or too narrow for the layers, or differ in size.
        DeviceError: the optimisation does not fit into memory.
        RecordError: a checkpoint to resume from is of another transfer, or of another step
            than the others'.
    """
    size = _common_size(subjects)
    for subject in subjects:
        _check(size, options, backbone, len(styles), subject.init_image, regions)
    runtime = backbone.runtime
    budget = _budget(subjects, options, runtime)
    check_memory(size, options, runtime, budget)
    contents = [subject.content for subject in subjects]
    content = torch.cat(contents) if len(contents) > 1 else contents[0]  # (B, 3, H, W)
    sizes = scale_sizes(size, options)
    run = Run(subjects, styles, regions, options, sizes, backbone, budget, should_stop)
    painting = content
    with runtime.using_threads():
        for order, at in enumerate(sizes):
            if order < run.first_scale:
                continue
            small = resize_image(content, at)
            start = enlarge(painting, small) if order else _start(small, subjects, styles, options)
            plan = plan_memory(at, options, runtime, budget)
            run.spared |= plan.spares
            seen, prepared, bring_back = _colored(small, styles, options)
            objective = Objective(
                backbone,
                seen.expand(-1, 3, -1, -1),
                _targets(backbone, prepared, at, options, regions, budget, cache),
                options,
                plan.strips,
            )
            stage = f"scale {order + 1} of {len(sizes)}, {at[1]}x{at[0]}"
            variable = luminance(start) if options.color == "keep-luminance" else start
            optimizer: Optimizer = (
                LBFGS(len(subjects), plan.history, half=plan.spares)
                if options.optimizer == "lbfgs"
                else Adam(options.learning_rate, len(subjects))
            )
            painting = bring_back(
                run.descend(objective, optimizer, variable, order, stage, bring_back)
            )
            if run.stopped:
                break
    if painting.shape[-2:] != content.shape[-2:]:
        painting = _finish(painting, content, options)
    return run.results(painting)


def mix_scales(
    fine: Tensor,
    coarse: Tensor,
    options: StyleOptions,
    backbone: Backbone,
    *,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Transfer:
    """Make a style image with the fine structure of one style and the coarse one of another.

    It starts from the coarse style, and the fine style's Gram loss of the lowest two style
    layers is minimised, while the features of the highest two stay near those of the coarse one.

    Args:
        fine: (1, 3, H', W'), whose strokes are wanted.
        coarse: (1, 3, H, W), whose composition of forms is wanted.
        options: ``steps``, optimiser and layers; the rest is set by the method.
        backbone: of the options' name.
        on_progress: as in `transfer_style`.
        should_stop: as in `transfer_style`.
    Source: Gatys et al. 2017, section 6.1. Theirs has no term for the high layers: starting from
    the coarse style should be enough, but with a fine style of other colours all layers drifted
    to the fine one here.
    """
    layers = options.resolved_style_layers
    mixing = replace(
        options,
        style_layers=layers[:2],
        content_layers=layers[-2:],
        layer_weights=(),
        objective="relative",
        strength=_FINE_SHARE,
        scales=1,
        color="style",
        init="content",
        blend=(),
    )
    return transfer_style(
        coarse,
        [fine],
        mixing,
        backbone,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def scale_sizes(size: tuple[int, int], options: StyleOptions) -> list[tuple[int, int]]:
    """The sizes that a painting goes through, coarse to fine, the last one being ``size``."""
    sizes = [size]
    for halving in range(1, options.scales):
        smaller = fit_long_side(size, max(1, round(max(size) / 2**halving)))
        if min(smaller) < _SHORTEST_SIDE:
            break
        sizes.insert(0, smaller)
    return sizes[-options.steps :]


def enlarge(painting: Tensor, content: Tensor) -> Tensor:
    """A coarse painting at the size of a content, with the detail that it was too coarse for.

    Args:
        painting: (B, 3, h, w) in [0, 1].
        content: (B, 3, H, W) in [0, 1], of the photo that it was painted from.
    Returns:
        (B, 3, H, W) in [0, 1], on the content's device.
    Source: Kolkin et al. 2019, "Style Transfer by Relaxed Optimal Transport and Self-Similarity",
    whose scales begin with a level of the content's Laplacian pyramid, too.
    """
    coarse, fine = ((x.shape[-2], x.shape[-1]) for x in (painting, content))
    detail = content - resize_image(resize_image(content, coarse), fine)
    # Not on the painting's device: MPS of older torch cannot resample with antialiasing.
    return (resize_image(painting.to(content.device), fine) + detail).clamp(0, 1)


def _common_size(subjects: Sequence[Subject]) -> tuple[int, int]:
    sizes = sorted({(s.content.shape[-2], s.content.shape[-1]) for s in subjects})
    if len(sizes) != 1:
        raise InputError(
            f"contents: pictures painted together need one size, got "
            f"{', '.join(f'{width}x{height}' for height, width in sizes) or 'none'}"
        )
    return sizes[0]


def _budget(subjects: Sequence[Subject], options: StyleOptions, runtime: Runtime) -> int | None:
    """Bytes of memory that each may take, or as many as it was planned with; None if unknown."""
    before = [subject.resume.budget for subject in subjects if subject.resume is not None]
    if before:
        return min((budget for budget in before if budget is not None), default=None)
    budget = memory_budget(options, runtime)
    return None if budget is None else budget // len(subjects)


def _check(
    size: tuple[int, int],
    options: StyleOptions,
    backbone: Backbone,
    styles: int,
    init_image: Tensor | None,
    regions: Tensor | None,
) -> None:
    if backbone.name != options.backbone:
        raise OptionError(
            f"backbone: the options name {options.backbone}, but {backbone.name} was given"
        )
    layers = (*options.resolved_content_layers, *options.resolved_style_layers)
    check_layers(options.backbone, layers)
    smallest = max(smallest_side(options.backbone, layer) for layer in layers)
    if min(size) < smallest:
        raise InputError(
            f"content: {size[1]}x{size[0]} px is too small for the layers of {options.backbone}, "
            f"which need {smallest} px a side; choose a larger --size or a less narrow picture"
        )
    if not styles:
        raise OptionError("style: expected at least one")
    if options.blend and len(options.blend) != styles:
        raise OptionError(
            f"blend: expected {styles} weights, one for each style, got {len(options.blend)}"
        )
    if (init_image is None) == (options.init == "image"):
        raise OptionError("init: 'image' and an init image belong together; give both or neither")
    if regions is not None and len(regions) != styles:
        raise OptionError(f"mask: {len(regions)} regions for {styles} styles; give one each")
    if regions is not None and options.blend:
        raise OptionError("blend: with a mask each style has its own region; leave blend out")


def _start(
    content: Tensor, subjects: Sequence[Subject], styles: Sequence[Tensor], options: StyleOptions
) -> Tensor:
    size = (content.shape[-2], content.shape[-1])
    if options.init == "style":
        return resize_image(styles[0], size).expand(len(content), -1, -1, -1)
    if options.init == "image":
        given = [s.init_image for s in subjects if s.init_image is not None]
        return torch.cat([resize_image(image, size) for image in given])
    if options.init == "noise":
        generator = torch.Generator().manual_seed(options.seed)
        noise = torch.randn(content.shape[1:], generator=generator)
        return (content.mean(dim=(2, 3), keepdim=True) + _NOISE * noise).clamp(0, 1)
    return content


def _targets(
    backbone: Backbone,
    styles: Sequence[Tensor],
    at: tuple[int, int],
    options: StyleOptions,
    regions: Tensor | None,
    budget: int | None,
    cache: StyleCache | None,
) -> list[StyleTarget]:
    long_side = max(at) * options.style_scale
    layers = options.resolved_style_layers
    smallest = max(smallest_side(options.backbone, layer) for layer in layers)
    grams = []
    for style in styles:
        height, width = fit_long_side((style.shape[-2], style.shape[-1]), round(long_side))
        enough = (max(height, smallest), max(width, smallest))
        larger = max(at, enough, key=math.prod)  # a style may be several times the painting
        strips = plan_memory(larger, options, backbone.runtime, budget).strips
        # With the content's colours in them, styles cannot be shared.
        shared = cache if options.color == "style" else None
        grams.append(_grams(backbone, style, enough, options, strips, shared))
    if regions is None:
        weights = options.blend or (1.0,) * len(styles)
        blended = {
            layer: torch.stack(
                [weight * gram[layer] for weight, gram in zip(weights, grams, strict=True)]
            ).sum(0)
            / sum(weights)
            for layer in layers
        }
        return [StyleTarget(blended)]
    guides = carry_guides(_shrink(regions, at), options.backbone, layers)
    device = backbone.runtime.torch_device
    return [
        StyleTarget(gram, {layer: guides[layer][region].to(device) for layer in layers})
        for region, gram in enumerate(grams)
    ]


def _grams(
    backbone: Backbone,
    style: Tensor,
    size: tuple[int, int],
    options: StyleOptions,
    strips: Strips,
    cache: StyleCache | None,
) -> dict[str, Tensor]:
    def make() -> dict[str, Tensor]:
        # One by one: a style may be larger than the paintings.
        each = [
            style_grams(backbone, one, options, strips)
            for one in torch.split(resize_image(style, size), 1)
        ]
        return {layer: torch.cat([grams[layer] for grams in each]) for layer in each[0]}

    if cache is None:
        return make()
    network = (backbone.name, backbone.weights_sha256, backbone.runtime)
    chosen = (size, options.resolved_style_layers, options.pooling, strips)
    return cache.get(("grams", image_sha256(style), *chosen, *network), make)


def _shrink(regions: Tensor, at: tuple[int, int]) -> Tensor:
    """Regions at another size, still zeros and ones except where one would vanish."""
    shares = functional.interpolate(regions, at, mode="area")  # (R, 1, h, w)
    hard = functional.one_hot(shares[:, 0].argmax(0), len(regions))  # (h, w, R)
    hard = hard.permute(2, 0, 1)[:, None].to(shares.dtype)  # (R, 1, h, w)
    vanished = hard.sum(dim=(1, 2, 3), keepdim=True) == 0
    return torch.where(vanished, shares, hard)


def _colored(
    content: Tensor, styles: Sequence[Tensor], options: StyleOptions
) -> tuple[Tensor, list[Tensor], Callable[[Tensor], Tensor]]:
    """Contents and styles as the objective sees them, and the way back to coloured pictures.

    The styles are (B, 3, H', W') where each content gives them its own colours, else (1, ...).
    """
    each = torch.split(content, 1)
    if options.color == "keep-luminance":
        gray = luminance(content)
        seen = [
            torch.cat([match_luminance(luminance(style), g) for g in torch.split(gray, 1)])
            for style in styles
        ]
        return (
            gray,
            [style.expand(-1, 3, -1, -1) for style in seen],
            lambda y: join_luminance(y, content.to(y.device)),
        )
    if options.color == "match":
        matched = [
            torch.cat([match_color(style, one, options.color_method) for one in each])
            for style in styles
        ]
        return content, matched, lambda x: x
    return content, list(styles), lambda x: x


def _finish(painting: Tensor, content: Tensor, options: StyleOptions) -> Tensor:
    """Enlarge a painting that was stopped at a coarse scale to the size of its content."""
    large = resize_image(painting.cpu(), (content.shape[-2], content.shape[-1]))
    if options.color == "keep-luminance":
        return join_luminance(luminance(large), content)
    return large
