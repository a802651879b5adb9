"""What lies behind the page, without a page: the line of jobs, the store, the guard, words."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from stylecap.backbone import check_layers
from stylecap.captioning.options import CaptionOptions
from stylecap.cli.main import main
from stylecap.errors import InputError, LimitError, OptionError, StylecapError
from stylecap.images import load_picture, split_alpha
from stylecap.options import options_of
from stylecap.runtime import Runtime
from stylecap.server import faults
from stylecap.server.commands import command_line, python_lines
from stylecap.server.guard import Guard
from stylecap.server.history import History, owner_of
from stylecap.server.jobs import BATCH, QUICK, BusyError, JobQueue
from stylecap.server.options import PageOptions
from stylecap.server.painting import (
    MACHINES,
    PaintRequest,
    check_file,
    check_request,
    open_picture,
    restore,
    restore_from,
)
from stylecap.server.regions import LABEL_STEP, keep_seen, propose, read_mask
from stylecap.server.site import Site, within_limits
from stylecap.server.web import preferred_language
from stylecap.style.builtin import STYLES, paint_style
from stylecap.style.memory import check_memory
from stylecap.style.options import PRESETS, StyleOptions
from tests.page import png_address, write_photo
from tests.small import small_captioner

ANN, BOB = owner_of("ann" * 10), owner_of("bob" * 10)


@pytest.fixture
def site(tmp_path):
    made = Site(PageOptions(folder=str(tmp_path / "page"), max_waiting=2, max_each=2))
    yield made
    made.close()


# the line


def test_one_job_runs_at_a_time_and_in_order():
    queue = JobQueue(10, 10)
    log: list[str] = []
    running = threading.Semaphore(1)

    def work(name):
        def run(job):
            assert running.acquire(blocking=False)
            time.sleep(0.01)
            running.release()
            log.append(name)
            return name

        return run

    jobs = [queue.submit(ANN, "tab", work(str(n))) for n in range(5)]
    assert all(job.wait(5) for job in jobs)
    assert log == [job.result for job in jobs] == list("01234")
    queue.close()


def test_a_full_line_and_a_greedy_visitor_are_refused():
    queue = JobQueue(max_waiting=2, max_each=2)
    gate = threading.Event()
    first = queue.submit(ANN, "tab", lambda job: gate.wait(5))
    while first.state == "waiting":
        time.sleep(0.01)
    queue.submit(ANN, "tab", lambda job: None)
    with pytest.raises(BusyError, match="already") as refused:
        queue.submit(ANN, "tab", lambda job: None)
    assert refused.value.own
    last = queue.submit(BOB, "tab", lambda job: None)
    with pytest.raises(BusyError, match="busy") as refused:
        queue.submit(owner_of("carol" * 6), "tab", lambda job: None)
    assert not refused.value.own
    assert queue.place(last) == 2 and queue.counts() == {"waiting": 2, "running": 1}
    gate.set()
    assert last.wait(5)
    queue.close()


def test_quick_jobs_pass_paintings_and_paintings_pass_batches():
    queue = JobQueue(10, 10)
    order: list[str] = []
    began = threading.Event()

    def batch(job):
        began.set()
        time.sleep(0.1)
        job.give_way()
        order.append("batch")

    def single(job):
        time.sleep(0.05)
        job.give_way()
        order.append("single")

    jobs = [queue.submit(ANN, "", batch, BATCH)]
    assert began.wait(5)
    jobs.append(queue.submit(BOB, "tab", single))
    jobs.append(queue.submit(BOB, "tab", lambda job: order.append("quick"), QUICK))
    assert all(job.wait(5) for job in jobs)
    assert order == ["quick", "single", "batch"]
    queue.close()


def test_stopping_a_tab_ends_its_jobs_alone_and_errors_do_not_end_the_worker():
    queue = JobQueue(10, 10)

    def until_stopped(job):
        while not job.should_stop():
            time.sleep(0.005)
        return "so far"

    running = queue.submit(ANN, "one", until_stopped)
    other = queue.submit(ANN, "two", lambda job: 1 / 0)
    waiting = queue.submit(ANN, "one", until_stopped)
    while running.state == "waiting":
        time.sleep(0.005)
    assert queue.stop(BOB, "one") == 0
    assert queue.stop(ANN, "one") == 2
    assert running.wait(5) and waiting.wait(5) and other.wait(5)
    assert (running.result, waiting.result, other.state) == ("so far", None, "failed")
    assert isinstance(other.error, ZeroDivisionError)
    assert queue.submit(ANN, "one", lambda job: 7).wait(5)
    queue.close()


# the store


def test_a_visitor_sees_only_what_is_theirs(site, tmp_path):
    history = site.history
    folder = history.new_folder(ANN)
    (folder / "result.png").write_bytes(b"x")
    item = history.add(folder, "cat", "{}", {"result": "result.png"})
    assert [each.name for each in history.items(ANN)] == [item.name] and not history.items(BOB)
    assert history.file(ANN, item.name, "result.png") == folder / "result.png"
    assert history.file(BOB, item.name, "result.png") is None
    with pytest.raises(InputError, match="no longer"):
        history.item(BOB, item.name)
    for name, file in ((item.name, "../x"), ("../" + ANN, "result.png"), (item.name, ".item.json")):
        assert history.file(ANN, name, file) is None
    assert history.may_read(ANN, folder / "result.png")
    assert not history.may_read(BOB, folder / "result.png")
    (folder / "way-out").symlink_to("/etc/passwd")
    assert not history.may_read(ANN, folder / "way-out")
    assert history.file(ANN, item.name, "way-out") is None
    assert not site.may_read(ANN, "/etc/passwd") and not site.may_read(ANN, "a\0b")
    history.remove(ANN)
    assert not history.items(ANN) and not folder.exists()


def test_uploads_belong_to_who_sent_them(site):
    sent = site.history.folder / "0a" / "photo.png"
    sent.parent.mkdir()
    sent.write_bytes(b"x")
    site.remember_upload(ANN, str(sent))
    assert site.given(ANN, str(sent)) == sent
    with pytest.raises(InputError, match="no longer here"):
        site.given(BOB, str(sent))
    past = time.time() - 25 * 3600
    for path in (sent, sent.parent):
        os.utime(path, (past, past))
    site.sweep()
    assert not sent.exists() and not site.may_read(ANN, sent)


def test_what_is_old_is_deleted_and_what_is_shared_stays(tmp_path):
    history = History(tmp_path, keep_seconds=100)
    old, new = history.new_folder(ANN), history.new_folder(BOB)
    (history.shared / "tile.webp").write_bytes(b"x")
    upload = tmp_path / "abc"
    upload.mkdir()
    (upload / "photo.png").write_bytes(b"x")
    past = time.time() - 200
    for path in (upload / "photo.png", upload, old, history.shared / "tile.webp"):
        os.utime(path, (past, past))
    assert history.sweep() == 2
    assert not old.exists() and not upload.exists()
    assert new.exists() and (history.shared / "tile.webp").exists()


def test_tiles_show_the_built_in_styles(site):
    def shown(style):
        return split_alpha(load_picture(site.tile(style)))[0]

    assert {shown(style).size for style in STYLES} == {(192, 192)}
    painted = paint_style("crosshatch", (256, 256), 0).resize((192, 192), Image.Resampling.LANCZOS)
    difference = np.asarray(shown("crosshatch"), float) - np.asarray(painted, float)
    assert np.abs(difference).mean() < 10


# what is asked for


@pytest.mark.parametrize(
    ("changes", "styles", "error", "words"),
    [
        ({"size": 4000}, ("mosaic",), LimitError, "1536 px, got 4000"),
        ({"steps": 9000}, ("mosaic",), LimitError, "up to 2000, got 9000"),
        ({}, (), OptionError, "choose one of the built-in"),
        ({}, ("mosaic",) * 7, LimitError, "up to 6 styles, got 7"),
        ({}, ("/etc/passwd",), OptionError, "no built-in style '/etc/passwd'"),
        ({"blend": (1.0, 2.0)}, ("mosaic",), OptionError, "expected 1 weights"),
        ({"init": "image"}, ("mosaic",), OptionError, "add that picture"),
        ({"style_layers": ("relu1_1",) * 99}, ("mosaic",), LimitError, "has 31 layers, got 99"),
    ],
)
def test_requests_beyond_the_limits_are_refused(changes, styles, error, words):
    request = PaintRequest(Path("photo.png"), styles, StyleOptions(**changes))
    with pytest.raises(error, match=words):
        check_request(request, PageOptions())


def test_a_mask_is_black_or_white_and_a_png():
    made = Image.new("L", (4, 2), 0)
    made.paste(200, (2, 0, 4, 2))

    mask = read_mask(png_address(made.convert("RGB")))
    assert mask.mode == "L" and list(mask.tobytes()) == [0, 0, 255, 255] * 2
    for wrong in ("", "data:image/png;base64,????", "data:image/png;base64,AAAA", None, 7):
        with pytest.raises(InputError):
            read_mask(wrong)


def test_regions_are_proposed_for_a_picture_that_is_kept_and_for_nobody_else(site, tmp_path):
    halves = np.zeros((96, 128, 3), np.uint8)
    halves[:, 64:] = (230, 90, 20)
    path = tmp_path / "halves.png"
    Image.fromarray(halves).save(path)
    name = keep_seen(site, ANN, path)
    found = site.history.file(ANN, name, propose(site, ANN, name, 2))
    with Image.open(found) as picture:
        shades = np.asarray(picture.convert("L"))
    assert shades.shape == (96, 128) and set(np.unique(shades)) == {0, LABEL_STEP}
    left, right = shades[:, :56], shades[:, 72:]
    assert (left == left[0, 0]).mean() > 0.98 and (right == LABEL_STEP - left[0, 0]).mean() > 0.98
    with pytest.raises(InputError, match="no longer here"):
        propose(site, BOB, name, 2)
    with pytest.raises(OptionError, match="regions"):
        propose(site, ANN, name, 99)


def test_the_command_shown_is_one_that_the_command_line_reads(tmp_path, monkeypatch, capsys):
    options = StyleOptions(
        size=64,
        steps=2,
        backbone="alexnet",
        blend=(1, 2),
        style_layers=("relu1",),
        seed=3,
        early_stopping=False,
    )
    photo = write_photo(tmp_path / "my cat.png")
    line = command_line(photo.name, ["mosaic", "crosshatch"], options)
    assert line.startswith("stylecap stylize 'my cat.png' mosaic crosshatch --size 64 --steps 2")
    import shlex

    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(line)[1:], "-o", "out.png", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["options"]["blend"] == [1, 2] and told["options"]["seed"] == 3
    assert told["options"]["early_stopping"] is False
    scope: dict[str, object] = {}
    exec(python_lines(photo.name, ["mosaic", "crosshatch"], options), scope)
    assert Path("my cat-painted.png").is_file()


def test_settings_come_back_from_a_record_with_the_inputs_that_are_here(tmp_path):
    from stylecap.files import file_sha256
    from stylecap.record import InputRecord, RunRecord

    photo = write_photo(tmp_path / "cat.png")
    record = RunRecord(
        "stylize",
        {"size": 99, "seed": 5, "device": "cuda", "precision": "bfloat16", "mask_colors": []},
        (
            InputRecord("content", "cat.png", file_sha256(photo)),
            InputRecord("style", "builtin:mosaic", ""),
            InputRecord("style", "gone.png", "0" * 64),
        ),
    )
    found = restore(record, [photo])
    assert (found.options.size, found.options.seed, found.options.device) == (99, 5, "auto")
    assert found.content == photo and found.styles == ("mosaic",)
    assert found.missing == ("gone.png",) and not found.masked


def test_regions_come_back_with_their_mask_and_what_is_outside(tmp_path):
    from stylecap.files import file_sha256
    from stylecap.record import InputRecord, RunRecord

    photo, mask = write_photo(tmp_path / "cat.png"), write_photo(tmp_path / "mask.png", (9, 9))
    content = InputRecord("content", "cat.png", file_sha256(photo))
    inside = InputRecord("style", "builtin:mosaic", "")
    where = InputRecord("mask", "mask.png", file_sha256(mask))
    kept = RunRecord(
        "stylize",
        {"mask_colors": ["#ffffff", "#000000"]},
        (content, inside, replace(content, role="style"), where),
        result={"outside": "photo"},
    )
    found = restore(kept, [photo, mask])
    assert (found.content, found.styles, found.missing) == (photo, ("mosaic",), ())
    assert found.masked and found.mask == mask and found.keep_outside
    assert restore(kept, [photo]).mask is None and restore(kept, [photo]).masked
    both = replace(kept, inputs=(content, inside, inside, where), result={})
    found = restore(both, [mask])
    assert (found.content, found.styles, found.missing) == (None, ("mosaic",) * 2, ("cat.png",))
    assert found.masked and not found.keep_outside


def test_a_painting_that_began_from_a_picture_does_so_again(tmp_path):
    from stylecap.files import file_sha256
    from stylecap.record import InputRecord, RunRecord

    photo, start = write_photo(tmp_path / "cat.png"), write_photo(tmp_path / "start.png", seed=2)
    inputs = tuple(
        InputRecord(role, path.name, file_sha256(path))
        for role, path in (("content", photo), ("init", start))
    )
    record = RunRecord("stylize", {"init": "image"}, inputs)
    found = restore(record, [photo, start])
    assert (found.start, found.options.init, found.missing) == (start, "image", ())
    found = restore(record, [photo])
    assert (found.start, found.options.init, found.missing) == (None, "content", ("start.png",))


def test_options_are_cut_to_what_the_page_allows():
    limits = PageOptions(max_size=300, max_steps=50)
    for name in PRESETS:
        options = within_limits(StyleOptions.preset(name), limits)
        assert options.size <= 300 and options.steps <= 50
        check_request(PaintRequest(Path("a.png"), ("mosaic",), options), limits)
    small = StyleOptions(size=200, steps=40, seed=3)
    assert within_limits(small, limits) == small


def test_a_fault_is_told_without_folders_and_logged_with_them(caplog):
    fault = faults.note(InputError("/home/ann/secret/cat.png: is text, not a picture; see --size"))
    assert fault.kind == "input" and fault.reason == "cat.png: is text, not a picture; see size"
    assert "/home/ann/secret" in caplog.text and fault.number in caplog.text
    fault = faults.note(RuntimeError("/etc/passwd"))
    assert (fault.kind, fault.reason) == ("unexpected", "")


# where it listens


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "--auth NAME:PASSWORD"),
        (["--auth", "ann"], "expected NAME:PASSWORD"),
        (["--root-path", "paint/"], "root_path: expected a path such as /paint"),
        (["--port", "70000"], "from 0 to 65535"),
    ],
)
def test_a_page_for_everybody_must_be_asked_for(flags, words, capsys, monkeypatch):
    monkeypatch.delenv("STYLECAP_AUTH", raising=False)
    assert main(["ui", *flags]) == 2
    assert words in capsys.readouterr().err


def test_the_language_follows_the_browser():
    assert preferred_language("ko-KR,ko;q=0.9,en;q=0.8") == "ko"
    assert preferred_language("fr;q=0.9,en;q=0.5,ko;q=0.7") == "ko"
    assert preferred_language("fr, de;q=x") == preferred_language("") == "en"


def test_the_guard_asks_for_a_password_and_gives_a_cookie(tmp_path):
    async def app(scope, receive, send):
        await PlainTextResponse("in")(scope, receive, send)

    site = Site(PageOptions(folder=str(tmp_path), auth="ann:open sesame", root_path="/paint"))
    client = TestClient(Guard(app, site))
    for auth in (None, ("ann", "wrong"), ("bob", "open sesame"), ("", "")):
        assert client.get("/", auth=auth).status_code == 401
    assert client.get("/", headers={"authorization": "Basic %%%"}).status_code == 401
    assert client.get("/healthz").status_code == 200
    answer = client.get("/", auth=("ann", "open sesame"))
    assert answer.text == "in"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/paint;" in cookie
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    site.close()


# words and controls


def test_everything_is_said_in_both_languages():
    from stylecap._ui.words import Words, keys

    english, korean = Words("en"), Words("ko")
    for key in keys():
        assert bool(english(key)) == bool(korean(key)), key
    same = [k for k in keys() if english(k) == korean(k) and english(k)]
    assert same == ["title"]
    for options in (StyleOptions, CaptionOptions):
        for name, declared in options_of(options).items():
            if name in (*MACHINES, "prefix"):  # not on the page
                continue
            assert korean.option(name) != name
            assert bool(korean.help(name, "")) == bool(english.help(name, declared.help)), name


def refused(work, *given, **more):
    with pytest.raises(StylecapError) as caught:
        work(*given, **more)
    return faults.note(caught.value).reason


def test_what_went_wrong_is_said_in_the_language_of_the_page(site, tmp_path):
    """The library's own sentences, as they are raised."""
    from stylecap._ui.reasons import reason
    from stylecap._ui.words import Words

    photo, limits = write_photo(tmp_path / "cat.png"), site.options
    files = {
        "empty.png": b"",
        "text.png": b"no picture",
        "cut.jpg": b"\xff\xd8\xff\xe0" + bytes(90),
        "what.png": bytes(range(256)) * 4,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    huge = tmp_path / "huge.png"
    Image.new("1", (1100, 1000)).save(huge)
    (tmp_path / "large.png").write_bytes(bytes(1_000_001))

    def asks(*styles, image=None, **changes):
        check_request(PaintRequest(photo, styles, StyleOptions(**changes), image), limits)

    captioner = small_captioner()
    said = [
        *(refused(open_picture, tmp_path / name, limits) for name in files),
        refused(open_picture, huge, replace(limits, max_megapixels=1)),
        refused(check_file, huge, replace(limits, max_megapixels=1)),
        refused(check_file, tmp_path / "large.png", replace(limits, max_megabytes=1)),
        refused(asks, "mosaic", size=5000),
        refused(asks, "mosaic", steps=40_000),
        refused(asks, *["mosaic"] * 20),
        refused(asks, "mosaic", blend=(1, 2)),
        refused(asks, "mosaic", init="image"),
        refused(StyleOptions, size=3),
        refused(StyleOptions, strength=2.0),
        refused(StyleOptions, seed=-1),
        refused(StyleOptions, color="sepia"),
        refused(StyleOptions, blend=(0, 0)),
        refused(StyleOptions, blend=(-1, 2)),
        refused(StyleOptions, layer_weights=(1, 2)),
        refused(CaptionOptions, beam=0),
        refused(captioner.check, CaptionOptions(match_weight=2.0)),
        refused(captioner.check, CaptionOptions(consensus_weight=2.0)),
        refused(captioner.check, CaptionOptions(prefix="zebra")),
        refused(captioner.check, CaptionOptions(prefix="a dog", max_words=1)),
        refused(check_layers, "vgg16", ["relu9"]),
        refused(site.given, ANN, "/nowhere.png"),
        refused(site.history.item, ANN, "none"),
        refused(check_memory, (384, 512), StyleOptions(), Runtime("cpu", "float32", 1), 10**8),
        refused(read_mask, "none"),
        refused(restore_from, photo, ANN, site),
        "unexpected error, in the log as 1234abcd",
    ]
    english, korean = Words("en"), Words("ko")
    for text in said:
        told = reason(korean, text)
        assert re.search("[가-힣]", told) and "{" not in told, text
        plain = re.sub(r"\([^)]*\)|'[^']*'|형식: .*|층: .*", "", told)  # names and formats stay
        assert not re.search("[a-z]{2,} [a-z]{2,}", plain), told
    assert reason(korean, "size: expected a whole number from 16 to 20, got 3") == (
        "긴 변 (px): 쓸 수 있는 값은 16부터 20까지의 정수입니다. 받은 값: 3"
    )
    assert reason(english, "size: expected a number, got 3").startswith("Long side, px: expected")
    assert reason(korean, "nobody has said this yet") == "nobody has said this yet"


def test_controls_are_made_from_the_options_and_read_back():
    from stylecap._ui.controls import Controls
    from stylecap._ui.words import Words

    controls = Controls(StyleOptions, Words("en"), {"size": 320}, {"size": 1536})
    controls.add_others(without=MACHINES)
    assert [*controls.by_name, *MACHINES] == list(options_of(StyleOptions))
    size = controls.by_name["size"]
    assert (size.minimum, size.maximum, size.value) == (16, 1536, 320)
    options = StyleOptions(size=300, blend=(2, 1), style_layers=("relu1_1",), layer_weights=(0.5,))
    assert controls.read(controls.show(options)) == options
    values = controls.show(StyleOptions())
    names = list(controls.by_name)
    for name, wrong in (("blend", "1, x"), ("size", "big"), ("color", "sepia"), ("blend", [1])):
        with pytest.raises(OptionError, match=name):
            controls.read([wrong if n == name else v for n, v in zip(names, values, strict=True)])


def test_a_number_that_may_be_unset_is_a_text():
    """What is empty stays unset; a Number would come back from the browser as 0."""
    from stylecap._ui.controls import Controls
    from stylecap._ui.words import Words

    controls = Controls(CaptionOptions, Words("en"))
    controls.add("beam", "length_penalty", "match_weight")
    assert controls.show(CaptionOptions()) == ["", "", ""]
    assert controls.read(["", "  ", None]) == CaptionOptions()
    options = CaptionOptions(beam=4, length_penalty=0.8, match_weight=0.0)
    assert controls.show(options) == ["4", "0.8", "0"]
    assert controls.read([" 4", "0.8", "0"]) == options
    for wrong in ("four", "3, 4", "2.5", "0", 3):
        with pytest.raises(OptionError, match="beam: expected"):
            controls.read([wrong, "", ""])


def test_a_number_out_of_its_range_is_refused_by_the_options():
    """Not by gradio, whose message is English on every page."""
    from stylecap._ui.controls import Controls
    from stylecap._ui.words import Words

    controls = Controls(StyleOptions, Words("ko"), {}, {"size": 400})
    controls.add("size", "seed", "strength")
    for name, value in (("size", 512), ("seed", -1), ("strength", 7.0)):
        shown = controls.by_name[name]
        assert type(shown).preprocess(value) == value  # gradio makes it anew from its class
    with pytest.raises(OptionError, match="seed: expected"):
        controls.read([300, -1, 0.5])


def test_of_a_folder_the_pictures_are_taken():
    from stylecap._ui.inputs import all_given

    folder = ["/x/a.PNG", "/x/.DS_Store", "/x/._a.png", "/x/Thumbs.db", "/x/b.webp"]
    assert all_given(["/x/notes.txt"], folder) == ["/x/notes.txt", "/x/a.PNG", "/x/b.webp"]
    assert all_given(None, None) == []


# batches


@pytest.mark.real_weights
def test_a_server_that_starts_again_goes_on_with_its_batches(tmp_path):
    """What is painted stays as it is, and the rest is painted without being asked for."""
    options = PageOptions(folder=str(tmp_path / "page"))
    photos = [tmp_path / f"{name}.png" for name in "abc"]
    for place, path in enumerate(photos):
        write_photo(path, seed=place)
    painting = StyleOptions(
        backbone="alexnet", size=64, steps=80, scales=1, precision="float32", early_stopping=False
    )
    first = Site(options)
    name = first.batches.start(ANN, photos, ["mosaic"], painting).name
    until(lambda: first.batches.all_of(ANN)[0].painted)
    first.close()
    (before,) = first.batches.all_of(ANN)
    assert before.state == "going"
    assert 1 <= len(before.painted) < 3
    out = first.history.place(ANN, name) / "out"
    done = {each.output: (out / each.output).stat().st_mtime_ns for each in before.painted}

    second = Site(replace(options, max_waiting=1))
    second.queue.submit("", "", lambda job: time.sleep(1), lane=BATCH)
    until(lambda: second.queue.counts() == {"waiting": 0, "running": 1})
    second.queue.submit("", "", lambda job: None, lane=BATCH)  # the line is full
    second.batches.resume()
    until(lambda: second.batches.all_of(ANN)[0].state != "going")
    second.close()
    (after,) = second.batches.all_of(ANN)
    assert (after.name, after.state, len(after.painted)) == (name, "done", 3)
    assert not any(each.error for each in after.painted)
    assert {each: (out / each).stat().st_mtime_ns for each in done} == done


def test_a_batch_that_is_deleted_leaves_nothing_behind(tmp_path, monkeypatch):
    from stylecap import batch as batches

    site = Site(PageOptions(folder=str(tmp_path / "page")))
    entered, deleted = threading.Event(), threading.Event()

    def run(jobs, folder, options, *, on_event, should_stop):
        entered.set()
        deleted.wait(10)
        assert should_stop()
        (folder / ".stylecap").mkdir(parents=True)  # where the last checkpoint goes
        yield from ()

    monkeypatch.setattr(batches, "run", run)
    photo = write_photo(tmp_path / "a.png")
    name = site.batches.start(ANN, [photo], ["mosaic"], StyleOptions()).name
    assert entered.wait(10)
    folder = site.history.place(ANN, name)
    site.batches.remove_all(ANN)
    assert not folder.exists()
    deleted.set()
    until(lambda: site.queue.counts() == {"waiting": 0, "running": 0})
    assert not folder.exists() and not site.batches.all_of(ANN)
    site.close()


def test_a_batch_that_waits_is_deleted_at_once(tmp_path):
    site = Site(PageOptions(folder=str(tmp_path / "page")))
    busy = threading.Event()
    site.queue.submit("", "", lambda job: busy.wait(20), lane=BATCH)
    photo = write_photo(tmp_path / "a.png")
    name = site.batches.start(ANN, [photo], ["mosaic"], StyleOptions()).name
    begin = time.monotonic()
    site.batches.remove(ANN, name)
    assert time.monotonic() - begin < 5 and site.history.place(ANN, name) is None
    busy.set()
    site.close()


def test_deleting_all_deletes_what_was_sent(site):
    mine, ours = (write_photo(site.history.folder / f"{n}.png") for n in ("mine", "ours"))
    for owner, path in ((ANN, mine), (ANN, ours), (BOB, ours)):
        site.remember_upload(owner, str(path))
    site.batches.remove_all(ANN)
    assert not mine.exists() and ours.exists()
    assert not site.may_read(ANN, ours) and site.may_read(BOB, ours)


def test_a_batch_within_the_limits_whose_painting_fails_says_so(tmp_path, monkeypatch):
    from stylecap import batch as batches

    site = Site(PageOptions(folder=str(tmp_path / "page"), max_megapixels=1))
    huge = tmp_path / "huge.png"
    Image.new("1", (1100, 1000)).save(huge)
    with pytest.raises(LimitError, match=r"huge\.png: 1100x1000 pixels .* 1 megapixels"):
        site.batches.start(ANN, [write_photo(tmp_path / "a.png"), huge], ["mosaic"], StyleOptions())
    assert not site.batches.all_of(ANN)

    def run(*args, **kwargs):
        raise TypeError("unexpected")

    monkeypatch.setattr(batches, "run", run)
    site.batches.start(ANN, [tmp_path / "a.png"], ["mosaic"], StyleOptions())
    until(lambda: site.batches.all_of(ANN)[0].state != "going")
    (failed,) = site.batches.all_of(ANN)
    assert failed.state == "failed" and "unexpected error, in the log as" in failed.error

    def damage(jobs, folder, options, **hooks):
        (folder.parent / "batch.json").write_text("{")
        yield from ()

    monkeypatch.setattr(batches, "run", damage)
    name = site.batches.start(ANN, [tmp_path / "a.png"], ["mosaic"], StyleOptions()).name
    until(lambda: site.queue.counts() == {"waiting": 0, "running": 0})
    assert (site.history.place(ANN, name) / "photos" / "a.png").is_file()  # nothing is deleted
    site.close()


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
