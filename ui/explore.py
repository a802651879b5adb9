"""The tab Explore: what a layer answers to, what poolings do to it, sizes and parameters."""

from __future__ import annotations

from typing import Any

import gradio as gr

from stylecap.backbone import BACKBONES, architecture
from stylecap.errors import InputError, OptionError
from stylecap.server.painting import open_picture
from stylecap.studio.explore import (
    FeatureMap,
    Pooled,
    compare_poolings,
    feature_maps,
    layer_rows,
    picture_for,
)

from . import pieces
from .context import Context
from .inputs import picture

_SIDE_PX = 320
_MAPS = 24
_TABLE_SIZE = (224, 224)
_FIRST = ("vgg16", "relu3_1")


def explore_tab(page: Context) -> None:
    """Build the tab."""
    words, site = page.words, page.site
    network, layer = _FIRST
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            photo = picture(words("explore.picture"), height=260, elem_id="explore-photo")
            chosen = gr.Dropdown(
                list(BACKBONES), value=network, label=words("explore.network"), filterable=False
            )
            at = gr.Dropdown(
                _layers(network), value=layer, label=words("explore.layer"), elem_id="layer"
            )
            go = gr.Button(words("explore.go"), variant="primary", size="lg", elem_id="look")
        with gr.Column(scale=8, min_width=320):
            shown = pieces.panel(pieces.empty(words("explore.empty")), elem_id="maps")
    table = pieces.panel(_table(page, network), elem_id="layers")

    def choose(name: str) -> list[Any]:
        layers = _layers(name)
        first = layer if layer in layers else "relu3"
        return [gr.Dropdown(choices=layers, value=first), _table(page, name)]

    async def look(request: gr.Request, path: str | None, name: str, layer: str) -> str:
        try:
            given = site.given(page.owner(request), path)
            if given is None:
                return pieces.complaint(words("need.photo"))

            def work() -> tuple[list[FeatureMap], list[Pooled]]:
                backbone = site.backbone(name)
                image = picture_for(open_picture(given, site.options), _SIDE_PX)
                maps = feature_maps(backbone, image, layer, _MAPS)
                try:
                    return maps, compare_poolings(backbone, image, layer)
                except (OptionError, InputError):  # no pooling above it, or too small for it
                    return maps, []

            maps, pools = await page.quickly(request, work)
            return _maps(page, layer, maps) + _pools(page, pools)
        except Exception as error:
            return page.alert(error)

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    chosen.input(choose, chosen, [at, table], queue=False, api_name="choose_network", **private)
    go.click(look, [photo, chosen, at], shown, api_name="look_inside", **private)
    photo.upload(look, [photo, chosen, at], shown, **private)
    at.input(look, [photo, chosen, at], shown, **private)


def _layers(network: str) -> list[str]:
    return [layer.name for layer in architecture(network)]


def _maps(page: Context, layer: str, maps: list[FeatureMap]) -> str:
    words = page.words
    entries = [
        (
            pieces.inline(each.picture),
            words("explore.channel", channel=each.channel, mean=f"{each.strength:.3g}"),
        )
        for each in maps
    ]
    title = words("explore.maps", count=len(maps), layer=layer)
    return pieces.heading(title) + pieces.figures(entries)


def _pools(page: Context, pools: list[Pooled]) -> str:
    if not pools:
        return ""
    words = page.words
    entries = [
        (
            pieces.inline(each.picture),
            f"{words(f'explore.pool.{each.pooling}')}, {each.size[0]}x{each.size[1]}, "
            + words("explore.mean", mean=f"{each.mean:.3g}"),
        )
        for each in pools
    ]
    title = words("explore.pools", channel=pools[0].channel)
    return pieces.heading(title) + pieces.figures(entries)


def _table(page: Context, network: str) -> str:
    words = page.words
    names = ("name", "output", "parameters", "madds", "field", "stride")
    head = [words(f"explore.{name}") for name in names]
    rows = layer_rows(network, _TABLE_SIZE)
    return pieces.heading(words("explore.table")) + pieces.table(
        head, rows, numbers=range(1, len(head))
    )
