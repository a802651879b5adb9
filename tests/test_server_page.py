"""The running page, asked as browsers ask it but without one: limits, privacy, hostile calls."""

from __future__ import annotations

import json
import re
import struct
import threading
import time
import zlib
from pathlib import Path

import httpx
import pytest
from PIL import Image

from stylecap.embedded import read_embedded
from stylecap.record import RunRecord
from tests.page import Visitor, as_input, png_address, running, write_captioner, write_photo


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    captioner = write_captioner(folder / "tiny.safetensors")
    limits = ["--max-size", "256", "--max-steps", "40000", "--max-megabytes", "2"]
    limits += ["--max-megapixels", "4", "--max-waiting", "2", "--max-each", "2"]
    store = folder / "hidden store"
    with running("--folder", str(store), "--captioner", str(captioner), *limits) as made:
        made.folder = store
        yield made
        assert made.process.poll() is None


@pytest.fixture
def ann(server):
    with Visitor(server.address) as visitor:
        yield visitor


@pytest.fixture
def bob(server):
    with Visitor(server.address) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return write_photo(tmp_path_factory.mktemp("photos") / "cat.png")


def painted(answer: str) -> str:
    """Address of the finished painting in what was said."""
    found = re.findall(r"/files/[0-9a-f-]+/result\.png", answer)
    assert found, answer[-2000:]
    return found[-1]


def test_health_and_the_way_to_a_language(server):
    told = httpx.get(f"{server.address}/healthz").json()
    assert told["status"] == "ok" and told["running"] >= 0
    answer = httpx.get(f"{server.address}/", headers={"accept-language": "ko"})
    assert answer.status_code == 302 and answer.headers["location"] == "/ko/"
    page = httpx.get(f"{server.address}/ko/")
    assert 'lang="ko"' in page.text and "내 사진" in page.text


def test_a_painting_is_shown_as_it_grows_kept_and_carries_its_record(ann, server, photo, tmp_path):
    answer = ann.paint(ann.given(photo), Steps=30)
    assert "Done: 30 steps" in answer
    assert "What the captioner reads" in answer and "stylecap stylize cat.png" in answer
    kept = tmp_path / "kept.png"
    for suffix in ("png", "jpg"):
        address = painted(answer).replace(".png", f".{suffix}") + "?download=1"
        got = ann.http.get(address)
        assert f'filename="cat-night-swirls.{suffix}"' in got.headers["content-disposition"]
        kept = tmp_path / f"kept.{suffix}"
        kept.write_bytes(got.content)
        record = RunRecord.from_json(read_embedded(kept))
        assert record.result["steps"] == 30 and record.options["size"] == 64
        assert [entry.name for entry in record.inputs] == ["cat.png", "builtin:night-swirls"]
    restored = ann.call("bring_back", [ann.given(kept)])
    assert "its settings are back" in restored and "content-cat.png" in restored
    assert str(server.folder) not in answer + restored


def test_a_page_that_was_changed_takes_things_as_before(ann, tmp_path):
    """Gradio makes components anew when it updates them, even where nothing changes."""
    path = tmp_path / "clear.png"
    Image.new("RGBA", (64, 48), (200, 30, 60, 120)).save(path)
    mine = ann.given(path)
    ann.call("bring_back", [mine])
    refused = ann.paint(mine, Strength_of_the_style=7)
    assert "expected a number from 0 to 1, got 7" in refused
    assert "Done: 12 steps" in ann.paint(mine, Steps=12)


def test_the_line_beside_the_button_says_what_it_will_take(ann, photo):
    mine = ann.given(photo)

    def said(photo, steps):
        given = ann.labelled("expect", Your_photo=photo, Steps=steps, Network="alexnet")
        return ann.call_now("expect", given)

    end = time.monotonic() + 120
    while "About" not in said(mine, 30000) and time.monotonic() < end:
        time.sleep(0.2)  # the networks are measured once the page is up
    pattern = r"About (\d+) min at most, and [\d.]+ MB"
    minutes = [int(re.search(pattern, said(mine, steps))[1]) for steps in (30000, 39000)]
    assert minutes[1] / minutes[0] == pytest.approx(1.3, abs=0.1)
    for unknown in (None, as_input("/etc/hostname")):
        assert "About" not in said(unknown, 30000)


def test_a_stop_keeps_the_picture_so_far(ann, photo):
    data = ann.painting(ann.given(photo), Steps=30000)
    answers = []
    for update in ann.updates("paint", data):
        answers.append(json.dumps(update))
        if len(answers) == 5:
            ann.call_now("stop", [])
    assert any(re.search(r"Step \d+ of 30000", answer) for answer in answers)
    assert re.search(r"Stopped after \d+ of 30000 steps", answers[-1])
    assert ann.http.get(painted(answers[-1])).status_code == 200


def test_what_one_visitor_has_no_other_can_get(ann, bob, photo, server):
    mine = ann.given(photo)
    address = painted(ann.paint(mine))
    file = f"/en/gradio_api/file={mine['path']}"
    assert ann.http.get(address).status_code == ann.http.get(file).status_code == 200
    assert bob.http.get(address).status_code == bob.http.get(file).status_code == 404
    name = address.split("/")[2]
    owner = next((server.folder / "own").glob(f"*/{name}")).parent.name
    inside = as_input(f"/store/own/{owner}/{name}/result.png")
    for stolen in (mine, inside):
        assert bob.join("paint", bob.painting(stolen)).status_code == 403
    assert bob.http.get(f"/en/gradio_api/file={inside['path']}").status_code == 404
    assert ann.http.get(f"/en/gradio_api/file={inside['path']}").status_code == 200
    assert "no longer kept" in bob.call_now("open", [], {"style": name})
    assert "cat, night-swirls" in ann.call_now("open", [], {"style": name})
    ann.call_now("act", [], {"delete": name})
    assert ann.http.get(address).status_code == 404
    assert not list((server.folder / "own").glob(f"*/{name}"))


def test_two_visitors_get_each_their_own(ann, bob, tmp_path):
    answers = {}

    def ask(visitor, seed):
        photo = write_photo(tmp_path / f"photo{seed}.png", seed=seed)
        answers[seed] = visitor, visitor.paint(visitor.given(photo), Seed=seed)

    both = [threading.Thread(target=ask, args=(v, n)) for v, n in ((ann, 1), (bob, 2))]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    for seed, (visitor, answer) in answers.items():
        path = tmp_path / "got.png"
        path.write_bytes(visitor.http.get(painted(answer)).content)
        record = RunRecord.from_json(read_embedded(path))
        assert record.options["seed"] == seed and record.inputs[0].name == f"photo{seed}.png"


def test_a_full_line_says_so_and_closing_a_tab_ends_its_job(server, ann, photo):
    others = [Visitor(server.address) for _ in range(3)]
    streams = []
    for visitor in others:
        visitor.join("paint", visitor.painting(visitor.given(photo), Steps=30000))
        streams.append(visitor.messages())
        next(streams[-1])
    wait_for(lambda: health(server)["waiting"] == 2)
    assert "Busy: too many pictures" in ann.paint(ann.given(photo))
    caption = ann.call("describe", ann.labelled("describe", A_picture=ann.given(photo)))
    assert "probability" in caption  # short work goes between the steps of what runs
    for visitor in others:  # a browser's tab holds this line open; closing it tells the server
        with visitor.http.stream(
            "GET", f"/en/gradio_api/heartbeat/{visitor.session}", timeout=5
        ) as alive:
            next(alive.iter_bytes())
    begin = time.monotonic()
    wait_for(lambda: health(server) | {"version": ""} == idle())
    assert time.monotonic() - begin < 20
    for visitor in others:
        visitor.http.close()


def test_captions_words_and_folders(ann, photo, tmp_path):
    given = ann.given(photo)
    answer = ann.call("describe", ann.labelled("describe", A_picture=given))
    assert "Copy" in answer and answer.count("data-say") >= 1 and "Probability" in answer
    assert "Where it looked" in ann.call_now("look", [None], {"place": 0})
    assert "sc-words" in ann.call("try_word", [None], {"place": 0, "word": "dog"})
    assert "Download the picture with its alt text" in ann.call("put_alt", [None])
    bad = ann.given(b"no picture at all", "bad.png")
    listed = ann.call("describe_all", ann.labelled("describe_all", **{FOLDER: [given, bad]}))
    assert "2 of 2 done" in listed and "bad.png: is text" in listed
    csv = ann.http.get(re.findall(r"/files/[0-9a-f-]+/captions\.csv", listed)[-1]).text
    assert csv.count("\n") == 3 and "cat.png" in csv


FOLDER = "A_whole_folder"


def test_the_network_can_be_looked_into(ann, photo):
    ann.call_now("choose_network", ["alexnet"])
    answer = ann.call("look_inside", [ann.given(photo), "alexnet", "relu1"])
    assert answer.count("<figure") == 24 + 5 and "stochastic, one draw" in answer
    assert ann.call("look_inside", [ann.given(photo), "alexnet", "pool5"]).count("<figure") == 24


def test_a_painted_mask_changes_what_is_inside(ann, photo, tmp_path):
    mask = Image.new("RGB", (96, 72))
    mask.paste((255, 255, 255), (0, 0, 30, 72))
    data = ann.labelled(
        "paint_regions", **{"Your_photo": ann.given(photo), "Long_side,_px": 128}, Steps=12,
        Network="alexnet", mask=png_address(mask),
    )  # fmt: skip
    answer = ann.call("paint_regions", data)
    path = tmp_path / "got.png"
    path.write_bytes(ann.http.get(painted(answer)).content)
    assert RunRecord.from_json(read_embedded(path)).result["outside"] == "photo"
    before = Image.open(photo).convert("RGB").resize((128, 96), Image.Resampling.LANCZOS)
    import numpy as np

    change = np.abs(np.asarray(Image.open(path), float) - np.asarray(before, float)).mean(2)
    assert change[:, 40 + 32 :].mean() <= 0.1 * change[:, :40].mean()
    assert change[:, :40].mean() > 5


# forty hostile things


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    nothing = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", nothing) + chunk(b"IEND", b"")
    )


def picture_bytes(tmp_path: Path, mode: str, size: tuple[int, int], suffix: str) -> bytes:
    path = tmp_path / f"made.{suffix}"
    Image.new(mode, size).save(path)
    return path.read_bytes()


BAD_FILES = {
    "empty": (b"", "x.png"),
    "text": (b"hello " * 50, "x.png"),
    "bomb of 900 megapixels": (png_header(30000, 30000), "x.png"),
    "bomb within int32": (png_header(2**31 - 1, 2**31 - 1), "x.png"),
    "truncated": (png_header(64, 64)[:60], "x.png"),
    "nothing inside": (png_header(64, 64), "x.png"),
    "zip": (b"PK\x03\x04" + b"\0" * 500, "x.png"),
    "svg with a script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "x.svg"),
    "html": (b"<html><script>alert(1)</script></html>", "x.html"),
    "jpeg header alone": (b"\xff\xd8\xff\xe0" + b"\0" * 40, "x.jpg"),
    "gif header alone": (b"GIF89a\xff\xff\xff\xff\0\0\0", "x.gif"),
    "tiff that points nowhere": (b"II*\0\xff\xff\xff\x7f", "x.tif"),
    "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "x.png"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.eps"),
    "name with a way up": (b"text", "../../../etc/passwd.png"),
    "name with a line break": (b"text", "a\nb.png"),
    "name of 300 letters": (b"text", "x" * 300 + ".png"),
    "name that is code": (b"text", "<img src=x onerror=alert(1)>.png"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_hostile_files_are_refused(kind, ann, server):
    data, name = BAD_FILES[kind]
    answer = ann.upload(data, name)
    assert answer.status_code < 500 or answer.status_code == 507
    if answer.status_code != 200:
        assert_harmless(answer.text, server)
        return
    said = ann.paint(as_input(answer.json()[0]))
    assert "sc-alert" in said and "/result.png" not in said
    assert "<img src=x" not in said
    assert_harmless(answer.text + said, server)


@pytest.mark.parametrize(
    ("mode", "size", "suffix"),
    [("I;16", (40, 30), "png"), ("CMYK", (40, 30), "jpg"), ("RGBA", (1, 1), "png")],
)
def test_odd_files_are_painted(mode, size, suffix, ann, tmp_path, server):
    said = ann.paint(ann.given(picture_bytes(tmp_path, mode, size, suffix), f"odd.{suffix}"))
    painted(said)
    assert_harmless(said, server)


BAD_SETTINGS = {
    "a million steps": {"Steps": 10**6},
    "steps as a text": {"Steps": "many"},
    "steps as a list": {"Steps": [5]},
    "huge size": {"Long_side,_px": 10**9},
    "negative size": {"Long_side,_px": -5},
    "no size": {"Long_side,_px": {"a": 1}},
    "strength beyond": {"Strength_of_the_style": 1e308},
    "unknown colours": {"Colours": "../../etc"},
    "unknown network": {"Network": "resnet"},
    "unknown layer": {"Style_layers": "relu9_9"},
    "a thousand layers": {"Style_layers": "relu1," * 1000},
    "weights that are texts": {"Weights_of_the_style_layers": "a, b"},
    "infinite weight": {"Weights_of_the_styles": "1e999"},
    "unknown built-in style": {"More_styles,_mixed_with_the_one_above": ["../../etc/passwd"]},
    "seven styles": {"More_styles,_mixed_with_the_one_above": ["mosaic"] * 9},
    "style that is a text": {"Style": "mosaic"},
}


@pytest.mark.parametrize("kind", BAD_SETTINGS)
def test_hostile_settings_are_refused(kind, ann, photo, server):
    answer = ann.join("paint", ann.painting(ann.given(photo), **BAD_SETTINGS[kind]))
    said = answer.text
    if answer.status_code == 200:
        messages = list(ann.messages())
        said = json.dumps(messages)
        assert "sc-alert" in said or any(m.get("success") is False for m in messages)
    assert "/result.png" not in said
    assert_harmless(said, server)


BAD_PATHS = (
    "/etc/passwd",
    "/store/../../../../../etc/passwd",
    "/store/own/../../x",
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "",
    "/store/shared/../own",
    7,
)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_of_others_are_refused(path, ann, server):
    given = {"path": path, "meta": {"_type": "gradio.FileData"}, "url": str(path)}
    answer = ann.join("paint", ann.painting(given))
    assert answer.status_code == 403
    got = ann.http.get(f"/en/gradio_api/file={path}")
    assert got.status_code == 404 and "root:" not in got.text
    assert_harmless(answer.text + got.text, server)


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/en/gradio_api/info", 404),
        ("GET", "/en/gradio_api/proxy=http://example.org/", 404),
        ("GET", "/en/gradio_api/file=http://example.org/x.png", 404),
        ("POST", "/en/gradio_api/component_server", 404),
        ("POST", "/en/gradio_api/call/paint", 404),
        ("GET", "/en/monitoring/abc", 404),
        ("GET", "/docs", 404),
        ("GET", "/files/..%2f..%2fetc/passwd", 404),
        ("GET", "/files/1234567890123-abcdefabcdef/%2e%2e%2fitem.json", 404),
        ("GET", "/look/..%2fpage.py", 404),
        ("GET", "/tiles/..%2f..%2fx.webp", 404),
        ("PUT", "/healthz", 405),
    ],
)
def test_there_is_nothing_else(method, address, status, ann, server):
    answer = ann.http.request(method, address)
    assert answer.status_code == status
    assert_harmless(answer.text, server)


def test_calls_that_are_none_are_refused(ann, server, photo):
    address = f"{ann.root}/gradio_api/queue/join"
    for body, status in (
        (b'{"data": [NaN]}', 400),
        (b"[" * 100_000, 400),
        (b"not json", 400),
        (b'"' + b"x" * 5_000_000 + b'"', 413),
        (b"[]", 422),
    ):
        assert ann.http.post(address, content=body).status_code == status, body[:20]
    for part in ({"fn_index": 10**9}, {"fn_index": -1}, {"session_hash": None}, {"data": []}):
        answer = ann.join("paint", ann.painting(None), instead=part)
        assert_harmless(answer.text, server)
    for said in (None, [], {"style": "../../x"}, {"style": {"a": 1}}, "x" * 1000):
        assert_harmless(ann.call_now("choose", ann.defaults("choose"), said), server)
        assert_harmless(ann.call("divide", [], said), server)
        assert_harmless(ann.call_now("open", [], said), server)
    big = ann.upload(b"x" * 2_100_000, "big.png")
    assert big.status_code == 413
    assert ann.http.post(f"{ann.root}/gradio_api/upload", json={}).status_code in (400, 413)
    stranger = server.address + address
    assert httpx.post(stranger, json={}).status_code == 403
    forged = {"cookie": "stylecap=../../../etc"}
    assert httpx.post(stranger, json={}, headers=forged).status_code == 403
    assert health(server)["status"] == "ok"


def assert_harmless(text: str, server) -> None:
    """Nothing of the machine is told, and the page still answers."""
    for telling in (str(server.folder), "site-packages", "Traceback", "/root/", "/home/", "/tmp/"):
        assert telling not in text
    assert health(server)["status"] == "ok"


def health(server):
    return httpx.get(f"{server.address}/healthz").json()


def idle():
    return {"status": "ok", "version": "", "waiting": 0, "running": 0}


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_page_behind_a_proxy_and_without_a_captioner(tmp_path, photo):
    arguments = ["--folder", str(tmp_path / "store"), "--root-path", "/paint"]
    arguments += ["--captioner", str(tmp_path / "none.safetensors")]
    with running(*arguments) as server:
        stripped = server.address.removesuffix("/paint")
        for address in (stripped, server.address):  # by a proxy that takes it off, and one not
            answer = httpx.get(f"{address}/", headers={"accept-language": "en"})
            assert answer.headers["location"] == "/paint/en/"
            assert "/paint/look/page.js" in httpx.get(f"{address}/en/").text
            assert httpx.get(f"{address}/healthz").json()["status"] == "ok"
        with Visitor(server.address) as visitor:
            assert visitor.config["root"].endswith("/paint/en")
            given = visitor.given(photo)
            assert visitor.http.get(f"/paint/en/gradio_api/file={given['path']}").is_success
            assert "/paint/files/" in visitor.paint(given)
            said = visitor.call("describe", visitor.labelled("describe", A_picture=given))
            assert "There is no captioner on this machine yet" in said


@pytest.mark.slow
def test_twenty_visitors_for_two_minutes(tmp_path):
    limits = ["--max-waiting", "6", "--max-each", "1", "--folder", str(tmp_path / "store")]
    with running(*limits) as server:
        warm = Visitor(server.address)
        photo = write_photo(tmp_path / "warm.png")
        for _ in range(3):
            warm.paint(warm.given(photo))
        before = server.memory_mb
        end = time.monotonic() + 120
        done, busy, wrong = [], [], []

        def visit(number: int) -> None:
            with Visitor(server.address) as visitor:
                mine = write_photo(tmp_path / f"photo{number}.png", seed=number)
                while time.monotonic() < end:
                    said = visitor.paint(visitor.given(mine), Seed=number, Steps=10)
                    if "/result.png" not in said:
                        (busy if "Busy" in said else wrong).append(said)
                        time.sleep(0.5)
                        continue
                    path = tmp_path / f"got{number}.png"
                    path.write_bytes(visitor.http.get(painted(said)).content)
                    record = RunRecord.from_json(read_embedded(path))
                    names = (record.options["seed"], record.inputs[0].name)
                    (done if names == (number, mine.name) else wrong).append(names)

        threads = [threading.Thread(target=visit, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in threads):
            most = max(most, health(server)["waiting"])
            time.sleep(0.2)
        assert not wrong and len(done) > 20 and busy and most <= 6
        time.sleep(2)
        assert health(server) | {"version": ""} == idle()
        assert server.memory_mb <= 1.1 * before
