"""The page in a real browser: Chromium without a screen, driven by playwright."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecap.batch.jobs import Job
from stylecap.batch.journal import Journal, Row, asked_of
from stylecap.batch.report import write_report
from stylecap.embedded import read_embedded
from stylecap.record import RunRecord
from stylecap.server.regions import read_mask
from stylecap.style.options import StyleOptions
from tests.page import running, write_captioner, write_photo

_REQUIRED = os.environ.get("STYLECAP_BROWSER_TESTS") == "required"
_CHROMIUM = os.environ.get("STYLECAP_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_WAIT_MS = 60_000

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None


@pytest.fixture(scope="module")
def chromium():
    missing = "playwright" if sync_playwright is None else None if _CHROMIUM else "chromium"
    if missing:
        why = f"{missing} is not installed; the page is not tried in a browser"
        pytest.fail(why) if _REQUIRED else pytest.skip(why)
    expect.set_options(timeout=_WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, chromium):
    folder = tmp_path_factory.mktemp("page")
    captioner = write_captioner(folder / "tiny.safetensors")
    with running("--folder", str(folder / "store"), "--captioner", str(captioner)) as made:
        yield made


def test_a_click_sorts_the_cards_of_a_batch(tmp_path: Path, chromium) -> None:
    lpips = {"a.png": 0.5, "b.png": 0.25, "c.png": 0.75}
    jobs = [Job("photo.jpg", ("mosaic",), StyleOptions(), name) for name in lpips]
    rows = [
        Row(job.output, "done", asked_of(job), ending={"card": {"content_lpips": value}})
        for job, value in zip(jobs, lpips.values(), strict=True)
    ]
    with Journal(tmp_path, (1, 1)) as journal:
        journal.put(rows)
    page = chromium.new_page()
    page.goto(write_report(tmp_path)[0].as_uri())
    names = page.locator("#cards tbody td:first-child")
    assert names.all_text_contents() == ["a.png", "b.png", "c.png"]
    by_lpips = page.get_by_role("button", name="content, LPIPS")
    by_lpips.click()
    assert names.all_text_contents() == ["b.png", "a.png", "c.png"]
    by_lpips.click()
    assert names.all_text_contents() == ["c.png", "a.png", "b.png"]
    page.get_by_role("button", name="result").click()
    assert names.all_text_contents() == ["a.png", "b.png", "c.png"]
    page.close()


class Tab:
    """A tab of a new visitor, which notes what it should not do."""

    def __init__(self, chromium, address: str, **context) -> None:
        self.address, self.wrong = address, []
        self.context = chromium.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "locale": "en", **context}
        )
        self.context.set_default_timeout(_WAIT_MS)
        self.page = self.open()

    def open(self):
        page = self.context.new_page()
        page.on("console", lambda m: m.type == "error" and self.wrong.append(m.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda asked: self.wrong.append(asked.url) if self._away(asked) else 0)
        page.goto(f"{self.address}/")
        page.wait_for_selector("#paint")
        return page

    def _away(self, asked) -> bool:
        return not asked.url.startswith((self.address, "data:", "blob:"))


@pytest.fixture
def tab(chromium, server):
    made = Tab(chromium, server.address)
    yield made
    made.context.close()
    assert not made.wrong


def small(page, part, size: int, steps: int) -> None:
    """Make a painting quick: AlexNet, few pixels and steps, and all of these."""
    within = page.get_by_role("tabpanel").filter(has=page.locator(part))
    within.get_by_role("button", name="All settings").click()
    within.locator(".option-backbone input[value=alexnet]").check()
    within.locator(".option-early_stopping input").uncheck()
    for name, value in (("Long side, px", size), ("Steps", steps)):
        box = within.get_by_role("spinbutton", name=re.compile(name)).first
        box.fill(str(value))
        box.press("Tab")


def add_photo(page, place: str, path) -> None:
    page.set_input_files(f"{place} input[type=file]", path)
    page.wait_for_selector(f"{place} img")


def drop(page, place: str, path: Path) -> None:
    """Drag a file or folder from outside onto a place."""
    box = page.locator(place).bounding_box()
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


def download(page, name: str, path: Path) -> Path:
    with page.expect_download() as coming:
        page.get_by_role("link", name=name).last.click()
    coming.value.save_as(path)
    return path


def test_painting_previews_stopping_downloading_and_restoring(tab, tmp_path):
    page = tab.page
    photo = write_photo(tmp_path / "harbour.png", (320, 240))
    add_photo(page, "#photo", photo)
    page.get_by_role("button", name="Stained glass").click()
    expect(page.get_by_role("button", name="Stained glass")).to_have_attribute(
        "aria-pressed", "true"
    )
    small(page, "#paint", 160, 1000)
    page.locator("#paint").click()
    previews = set()
    while len(previews) < 3:
        page.wait_for_selector(".sc-stage img[src*=preview]")
        previews.add(page.locator(".sc-stage img").first.get_attribute("src"))
        page.wait_for_timeout(100)
    expect(page.locator(".sc-progress").first).to_contain_text(
        re.compile(r"Step \d+ of 1000 · size \d of \d · loss .* s a step · about .* left")
    )
    page.get_by_role("button", name="Stop and keep").click()
    expect(page.locator(".sc-notice").first).to_contain_text("Stopped after")
    steps = int(re.findall(r"after (\d+) of", page.locator(".sc-notice").first.inner_text())[0])
    kept = download(page, "Download PNG", tmp_path / "kept.png")
    record = RunRecord.from_json(read_embedded(kept))
    assert 0 < record.result["steps"] == steps < 1000 and record.result["stopped"]
    jpeg = download(page, "Download JPEG", tmp_path / "kept.jpg")
    assert RunRecord.from_json(read_embedded(jpeg)).options == record.options
    slider = page.get_by_label("Compare")
    slider.focus()
    for _ in range(30):
        slider.press("ArrowRight")
    assert page.locator(".sc-compare").evaluate("e => e.style.getPropertyValue('--cut')") == "30%"
    expect(page.locator(".sc-captions dd")).to_have_count(2)
    page.get_by_text("Show command").first.click()
    expect(page.locator("pre").first).to_contain_text("stylecap stylize harbour.png stained-glass")

    page.reload()
    page.wait_for_selector("#paint")
    page.set_input_files("#photo input[type=file]", kept)
    expect(page.locator(".sc-notice").first).to_contain_text("its settings are back")
    page.get_by_role("button", name="All settings").first.click()
    sizes = page.get_by_role("spinbutton", name=re.compile("Long side"))
    expect(sizes.first).to_have_value("160")
    assert "stained-glass" in page.locator("#style img").get_attribute("src")

    page.get_by_role("tab", name="History").click()
    page.locator("#history button").first.click()
    expect(page.locator("#opened")).to_contain_text("harbour, stained-glass")
    expect(page.locator("#opened pre").first).to_contain_text("stylecap stylize harbour.png")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#history")).to_contain_text("Nothing painted yet")


def test_a_closed_tab_ends_its_painting_and_its_picture_is_in_the_history(tab, tmp_path):
    page = tab.page
    add_photo(page, "#photo", write_photo(tmp_path / "closing.png", (200, 150)))
    small(page, "#paint", 128, 1500)
    page.locator("#paint").click()
    page.wait_for_selector(".sc-stage img[src*=preview]")
    page.close()
    again = tab.open()
    again.get_by_role("tab", name="History").click()
    for _ in range(20):  # within two seconds, where the machine is not busy otherwise
        if again.locator("#history button").count():
            break
        again.wait_for_timeout(500)
        again.get_by_role("tab", name="Explore").click()
        again.get_by_role("tab", name="History").click()
    again.locator("#history button").first.click()
    expect(again.locator("#opened")).to_contain_text("Stopped after")


def test_a_painted_mask_keeps_the_rest_as_it_is(tab, tmp_path):
    page = tab.page
    photo = write_photo(tmp_path / "meadow.png", (256, 192))
    page.get_by_role("tab", name="Regions").click()
    add_photo(page, "#regions-photo", photo)
    page.wait_for_selector(".sc-mask canvas")
    page.wait_for_function("document.querySelector('.sc-mask canvas').width === 256")
    page.locator("[data-mask=brush]").evaluate("e => { e.value = 30; }")
    canvas = page.locator(".sc-mask canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x = box["x"] + 0.15 * box["width"]
    page.mouse.move(x, box["y"] + 0.1 * box["height"])
    page.mouse.down()
    page.mouse.move(x, box["y"] + 0.9 * box["height"], steps=8)
    page.mouse.up()
    small(page, "#paint-regions", 256, 30)
    page.locator("#paint-regions").click()
    panel = page.get_by_role("tabpanel").filter(has=page.locator("#paint-regions"))
    expect(panel.locator(".sc-notice")).to_contain_text("Done: 30 steps")
    result = download(page, "Download PNG", tmp_path / "kept.png")
    before = np.asarray(Image.open(photo).convert("RGB"), float)
    change = np.abs(np.asarray(Image.open(result).convert("RGB"), float) - before).mean(2)
    edge = round(256 * (0.15 + 0.15))
    inside, outside = change[:, : edge - 4].mean(), change[:, edge + 32 :].mean()
    assert inside > 4 and outside <= 0.1 * inside

    painted = marked(page)
    page.locator("[data-mask=clear]").click()
    assert page.evaluate("window.stylecap.mask()") == ""
    page.get_by_role("tab", name="History").click()
    page.locator("#history button").first.click()
    page.get_by_role("button", name="Use these settings again").click()
    expect(panel.locator(".sc-notice")).to_contain_text("its settings are back.")
    page.wait_for_function("window.stylecap.mask() !== ''")
    assert (marked(page) == painted).all()
    expect(page.get_by_label("Style outside")).to_have_value("Keep the photo")


def test_regions_that_were_found_are_chosen_by_click_and_by_keyboard(tab, tmp_path):
    page = tab.page
    halves = np.zeros((192, 256, 3), np.uint8)
    halves[:, 128:] = (230, 90, 20)
    Image.fromarray(halves).save(tmp_path / "halves.png")
    page.get_by_role("tab", name="Regions").click()
    add_photo(page, "#regions-photo", tmp_path / "halves.png")
    page.get_by_role("button", name="2 regions").click()
    chips = page.locator(".sc-chips button")
    expect(chips).to_have_count(2)
    page.wait_for_function("document.querySelector('.sc-chips canvas').width === 160")
    assert page.evaluate("window.stylecap.mask()") == ""
    canvas = page.locator(".sc-mask > canvas")
    canvas.click(position={"x": 40, "y": 40})
    chosen = page.locator(".sc-chips [aria-pressed=true]")
    expect(chosen).to_have_count(1)
    mask = marked(page)
    assert mask.shape == (192, 256) and mask[:, :112].mean() > 250 and mask[:, 144:].mean() < 5
    chosen.focus()
    page.keyboard.press("Enter")
    expect(chosen).to_have_count(0)
    assert not marked(page).any()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Swap").click()
    mask = marked(page)
    assert mask[:, :112].mean() < 5 and mask[:, 144:].mean() > 250
    page.get_by_role("button", name="Erase").click()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + box["height"], steps=4)
    page.mouse.up()
    assert marked(page)[:, 200:208].mean() < 5 and marked(page)[:, 150:180].mean() > 250


def marked(page) -> np.ndarray:
    """The mask as the page would send it."""
    return np.asarray(read_mask(page.evaluate("window.stylecap.mask()")))


def test_a_caption_its_words_and_other_words(tab, tmp_path):
    page = tab.page
    page.get_by_role("tab", name="Caption").click()
    add_photo(page, "#caption-photo", write_photo(tmp_path / "scene.png", (160, 120)))
    words = page.locator("#sentence .sc-words button")
    expect(words.first).to_be_visible()
    expect(page.locator("#others tbody tr").first).to_be_visible()
    words.first.focus()
    words.first.press("Enter")
    expect(page.locator("#word")).to_contain_text("Where it looked for")
    other = page.locator("#word .sc-actions button").first
    chosen = other.inner_text().split(" · ")[0]
    other.click()
    expect(words.first).to_contain_text(chosen)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#sentence [data-copy]").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(chosen)
    page.locator("#alt").click()
    path = download(page, "Download the picture with its alt text", tmp_path / "with.png")
    with Image.open(path) as described:
        assert copied in described.info["Description"]


def test_what_is_not_set_stays_unset(tab, tmp_path):
    """Opening the settings changes nothing, and what is wrong is said."""
    page = tab.page
    page.get_by_role("tab", name="Caption").click()
    add_photo(page, "#caption-photo", write_photo(tmp_path / "scene.png", (160, 120)))
    sentence = page.locator("#sentence .sc-sentence")
    expect(sentence).to_be_visible()
    before, others = sentence.inner_text(), page.locator("#others").inner_text()
    page.get_by_role("button", name="How words are chosen").click()
    beam = page.locator(".option-beam").get_by_role("textbox")
    expect(beam).to_have_value("")
    beam.press_sequentially("many", delay=50)  # as people type: gradio may still be setting it up
    page.locator("#describe").click()
    expect(page.locator("#sentence")).to_contain_text("Beam: expected")
    beam.fill("")
    page.locator("#describe").click()
    expect(sentence).to_have_text(before.replace("\n", ""))
    assert page.locator("#others").inner_text() == others


def test_a_batch_goes_on_without_a_page_and_names_what_failed(tab, tmp_path):
    page = tab.page
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        write_photo(folder / f"photo{number}.png", (96, 72), seed=number)
    (folder / "broken.png").write_bytes(b"this is no picture")
    page.get_by_role("tab", name="Batch").click()
    drop(page, "#batch-photos-directory", folder)
    expect(page.locator("#batch-photos-directory")).to_contain_text("broken")
    for name in ("Stained glass", "Night swirls"):  # the second was chosen at first
        page.get_by_role("button", name=name).click()
    pressed = page.locator(".sc-many [aria-pressed=true]")
    expect(pressed).to_have_count(1)
    expect(pressed).to_have_text("Stained glass")
    small(page, "#batch-go", 64, 40)
    page.locator("#batch-go").click()
    expect(page.locator(".sc-batch")).to_contain_text("of 5 done")
    page.close()
    again = tab.open()
    again.get_by_role("tab", name="Batch").click()
    expect(again.locator(".sc-batch")).to_contain_text("4 of 5 done · 1 failed · Done")
    expect(again.locator(".sc-gallery img")).to_have_count(4)
    expect(again.locator(".sc-batch .sc-alert")).to_contain_text("broken")
    packed = download(again, "Download ZIP", tmp_path / "all.zip")
    shutil.unpack_archive(packed, tmp_path / "unpacked")
    names = sorted(path.name for path in (tmp_path / "unpacked").iterdir())
    assert names == [*(f"photo{n}-stained-glass.png" for n in range(4)), "results.csv"]


def test_the_network_is_shown(tab, tmp_path):
    page = tab.page
    page.get_by_role("tab", name="Explore").click()
    expect(page.locator("#layers")).to_contain_text("14,714,688")
    page.get_by_role("tabpanel").get_by_label("Network").last.click()
    page.get_by_role("option", name="alexnet").click()
    expect(page.locator("#layers")).to_contain_text("2,469,696")
    add_photo(page, "#explore-photo", write_photo(tmp_path / "scene.png", (160, 120)))
    expect(page.locator("#maps figure")).to_have_count(29)


def test_korean_a_narrow_screen_and_the_dark(chromium, server):
    tab = Tab(
        chromium,
        server.address,
        locale="ko-KR",
        viewport={"width": 390, "height": 800},
        color_scheme="dark",
    )
    page = tab.page
    assert page.url.endswith("/ko/")
    assert page.evaluate("document.documentElement.lang") == "ko"
    assert page.evaluate("document.body.classList.contains('dark')")
    expect(page.locator("#photo")).to_contain_text("내 사진")
    for name in ("스타일", "영역", "설명", "여러 장", "탐구", "기록"):
        choose_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        text = page.locator("[role=tabpanel]:visible").inner_text()
        english = [
            line for line in text.splitlines() if re.match(r"[A-Z][a-z]+ [a-z]+ [a-z]", line)
        ]
        assert not english, name
    page.get_by_role("button", name="밝게 / 어둡게").click()
    assert not page.evaluate("document.body.classList.contains('dark')")
    page.get_by_role("link", name="English").click()
    page.wait_for_url("**/en/")
    expect(page.locator("#photo")).to_contain_text("Your photo")
    tab.context.close()
    assert not tab.wrong


def choose_tab(page, name: str) -> None:
    """Press a tab, which a narrow screen keeps behind a menu."""
    entry = page.get_by_role("tab", name=name, exact=True)
    if not entry.first.is_visible():
        page.locator(".overflow-menu > button").first.click()
        page.locator(".overflow-dropdown").get_by_text(name, exact=True).click()
    else:
        entry.first.click()


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(tab):
    page = tab.page
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, select, button, a[href]')]
          .filter(e => e.offsetParent !== null || e.type === 'range')
          .filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label')
            && !e.getAttribute('title') && !e.textContent.trim() && e.type !== 'file')
          .map(e => e.outerHTML.slice(0, 160))"""
    )
    assert not nameless
    reached = set()
    page.locator("header a").first.focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "() => { const e = document.activeElement;"
                " return e.id || e.getAttribute('aria-label') || e.textContent.trim(); }"
            )
        )
    assert {"Mosaic", "paint"} <= reached
