"""The page in real Chromium, as a person uses it: mouse, keyboard alone, phone, screen reader."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_recordings
from served import answering, calibration, serving

from earshot.library import index
from earshot.search import Searcher
from earshot.server import create_app
from earshot.store import MemoryStore

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = sync_api.expect

SLOW_MS = 30_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        installed = next(filter(None, map(shutil.which, BROWSERS)), None)
        path = installed or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("needs a Chromium: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(library_index: Path, home: Path) -> Iterator[str]:
    with serving(library_index, home) as (url, _):
        yield url


def opened(browser: Any, address: str, **options: Any) -> Any:
    """A page of a fresh visitor; `problems` and `asked` of it are what must be right at the end."""
    options = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark", **options}
    context = browser.new_context(**options)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page = context.new_page()
    page.set_default_timeout(SLOW_MS)
    expect.set_options(timeout=SLOW_MS)
    page.problems, page.asked = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda m: m.type == "error" and page.problems.append(m.text))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector(".hit")
    return page


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = opened(browser, address)
    yield page
    assert page.problems == []
    assert [url for url in page.asked if not url.startswith((address, "blob:"))] == []
    page.context.close()


def ask(page: Any, text: str) -> None:
    page.fill("#q", text)
    expect(page.locator("#summary")).to_contain_text(text)
    until_answered(page)


def until_answered(page: Any) -> None:
    expect(page.locator("#hits")).to_have_attribute("aria-busy", "false")


def place_s(page: Any) -> float:
    value: float = page.evaluate("() => document.querySelector('#audio').currentTime")
    return value


def until_playing(page: Any, beyond_s: float = 0.0) -> None:
    page.wait_for_function(
        "s => [document.querySelector('#audio')].every((a) => !a.paused && a.currentTime > s)",
        arg=beyond_s,
    )


def test_all_recordings_are_listed_before_anything_is_asked(page: Any) -> None:
    expect(page.locator("#summary")).to_have_text("16 sounds")
    expect(page.locator(".hit")).to_have_count(16)
    expect(page.locator("#status-line")).to_contain_text("1 broken")


def test_typing_finds_and_the_address_keeps_the_question(page: Any) -> None:
    ask(page, "a rising tone")
    expect(page.locator("#live")).to_contain_text("a rising tone")
    assert "q=a+rising+tone" in page.url
    names = page.locator(".hit .name").all_inner_texts()
    page.reload()
    expect(page.locator("#q")).to_have_value("a rising tone")
    expect(page.locator(".hit .name")).to_have_text(names)


def test_waveforms_and_spectrograms_are_drawn(page: Any) -> None:
    ask(page, "tone")
    drawn = """() => {
      const canvas = document.querySelector('.hit canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(data).size > 4;
    }"""
    page.wait_for_function(drawn)
    page.locator(".hit .round").first.click()
    page.locator("#view").click()
    expect(page.locator("#view")).to_have_attribute("aria-pressed", "true")
    colours = """() => {
      const canvas = document.querySelector('#stage-canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(data).size > 30;
    }"""
    page.wait_for_function(colours)


@pytest.mark.parametrize("name", ["tone.aiff", "deep.wav", "tone.ogg", "long.flac"])
def test_every_format_plays(page: Any, name: str) -> None:
    row = page.locator(".hit", has_text=name)
    row.locator(".round").click()
    until_playing(page, 0.1)
    expect(page.locator("#now-name")).to_have_text(name)
    expect(row).to_have_class(re.compile("playing"))


def test_seeking_by_click_and_key(page: Any) -> None:
    row = page.locator(".hit", has_text="long.flac")
    box = row.locator(".picture").bounding_box()
    row.locator(".picture").click(position={"x": box["width"] * 0.75, "y": 20})
    until_playing(page, 0.7 * 65)
    page.keyboard.press("Space")
    before = place_s(page)
    page.keyboard.press("Shift+ArrowLeft")
    assert place_s(page) == pytest.approx(before - 10, abs=0.2)
    page.keyboard.press("ArrowRight")
    assert place_s(page) == pytest.approx(before - 9, abs=0.2)
    stage = page.locator("#stage")
    wide = stage.bounding_box()["width"]
    stage.click(position={"x": wide * 0.1, "y": 30})
    assert place_s(page) == pytest.approx(6.5, abs=0.5)
    assert stage.get_attribute("aria-valuetext").startswith("0:06")


def test_filters_narrow_and_are_cleared(page: Any) -> None:
    ask(page, "noise")
    page.fill("[name=shortest]", "30")
    expect(page.locator(".hit")).to_have_count(1)
    expect(page.locator(".hit .name")).to_have_text("long.flac")
    expect(page.locator("#filter-count")).to_have_text("1")
    page.select_option("[name=rate]", "48000")
    expect(page.locator(".hit")).to_have_count(0)
    expect(page.locator("#summary")).to_have_text("No sound passes these filters")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".hit")).to_have_count(16)


def test_a_dropped_sound_is_searched_by(page: Any, library: Path) -> None:
    data = base64.b64encode((library / "tone.ogg").read_bytes()).decode()
    transfer = page.evaluate_handle(
        """data => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], 'mine.ogg', {type: 'audio/ogg'}));
          return transfer;
        }""",
        data,
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_be_hidden()
    expect(page.locator(".chip")).to_contain_text("mine.ogg")
    expect(page.locator("#summary")).to_contain_text("ounds")
    page.get_by_role("button", name="Remove like mine.ogg").click()
    expect(page.locator("#chips")).to_be_hidden()


def test_a_chosen_file_that_is_no_sound_is_told(page: Any, library: Path) -> None:
    page.set_input_files("#file", library / "broken.wav")
    expect(page.locator("#toast")).to_contain_text("broken.wav")
    page.problems.clear()  # Chromium reports the 422 as an error of its own.


def test_a_selected_part_is_searched_by(page: Any) -> None:
    page.locator(".hit", has_text="long.flac").locator(".round").click()
    until_playing(page)
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 35, steps=5)
    page.mouse.up()
    expect(page.locator("#region")).to_be_visible()
    expect(page.locator("#part-label")).to_contain_text("More like 0:1")
    page.locator("#part").click()
    expect(page.locator(".chip")).to_contain_text("long.flac 0:1")
    page.go_back()
    expect(page.locator("#chips")).to_be_hidden()


def test_feedback_orders_anew_and_is_taken_back(page: Any) -> None:
    ask(page, "noise")
    second = page.locator(".hit").nth(1)
    name = second.locator(".name").inner_text()
    with page.expect_request(lambda r: r.method == "POST" and '"unlike":[{' in r.post_data):
        second.get_by_role("button", name="Dislike").click()
    expect(page.locator(".chip.un")).to_contain_text(name)
    first = page.locator(".hit").first
    first.get_by_role("button", name="Like", exact=True).click()
    expect(page.locator(".chip")).to_have_count(2)
    page.get_by_role("button", name=f"Remove unlike {name}").click()
    expect(page.locator(".chip")).to_have_count(1)


def test_what_must_not_be_heard_is_sent(page: Any) -> None:
    ask(page, "rain")
    with page.expect_request(lambda r: r.method == "POST" and "speech" in r.post_data) as asked:
        page.fill("#not", "speech, wind")
    assert asked.value.post_data_json["without"] == ["speech", "wind"]


def test_the_keyboard_alone_is_enough(page: Any, library: Path) -> None:
    press = page.keyboard.press
    page.locator("body").click(position={"x": 640, "y": 5})
    press("/")
    page.keyboard.type("noise")
    expect(page.locator("#summary")).to_contain_text("noise")
    until_answered(page)
    press("ArrowDown")
    expect(page.locator(".hit").first).to_be_focused()
    press("ArrowDown")
    expect(page.locator(".hit").nth(1)).to_be_focused()
    press("Enter")
    until_playing(page)
    expect(page.locator("#toggle")).to_have_attribute("aria-label", "Pause")
    press("c")
    assert str(library) in page.evaluate("() => navigator.clipboard.readText()")
    with page.expect_download() as download:
        press("w")
    name = page.locator(".hit.current .name").inner_text()
    assert download.value.suggested_filename == name
    press("s")
    expect(page.locator("#view")).to_have_attribute("aria-pressed", "true")
    press("?")
    expect(page.locator("#help")).to_be_visible()
    press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    press("l")
    expect(page.locator(".chip")).to_contain_text(name)
    press("f")
    expect(page.locator("#filters")).to_be_hidden()
    press("t")
    assert page.evaluate("() => document.documentElement.dataset.theme") == "light"
    press("i")
    expect(page.locator("#broken")).to_contain_text("broken.wav")
    press("Escape")
    press("ArrowDown")
    press("m")
    expect(page.locator(".chip")).to_have_count(1)
    expect(page.locator("#q")).to_have_value("")
    expect(page.locator("#summary")).to_have_text("15 sounds")
    until_answered(page)
    expect(page.locator(".hit").first).to_be_focused()
    press("ArrowUp")
    expect(page.locator("#q")).to_be_focused()


def test_brackets_select_without_a_mouse(page: Any) -> None:
    page.locator(".hit", has_text="long.flac").locator(".picture").click(position={"x": 60, "y": 9})
    until_playing(page)
    page.keyboard.press("Space")
    page.keyboard.press("[")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("]")
    expect(page.locator("#region")).to_be_visible()
    span = page.locator("#part-label").inner_text()
    start, end = (float(text.split(":")[1]) for text in re.findall(r"\d:\d\d\.\d", span))
    assert end - start == pytest.approx(10, abs=0.3)
    page.keyboard.press("Escape")
    expect(page.locator("#region")).to_be_hidden()


def test_a_long_recording_can_be_zoomed(page: Any) -> None:
    page.locator(".hit", has_text="long.flac").locator(".round").click()
    until_playing(page)
    with page.expect_request(re.compile(r"peaks.*start_s=0&end_s=20")):
        page.keyboard.press("z")
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")


def overflow(page: Any) -> int:
    width: int = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    return width


def test_a_phone_has_everything_and_scrolls_one_way(browser: Any, address: str) -> None:
    phone = opened(browser, address, viewport={"width": 360, "height": 740}, has_touch=True)
    assert overflow(phone) <= 0
    expect(phone.locator("#filters")).to_be_hidden()
    ask(phone, "noise")
    phone.locator(".hit .round").first.tap()
    until_playing(phone)
    expect(phone.locator(".hit").first.get_by_role("button", name="Dislike")).to_be_visible()
    assert overflow(phone) <= 0
    phone.locator("#filter-button").tap()
    expect(phone.locator("#filters")).to_be_visible()
    assert overflow(phone) <= 0
    assert phone.problems == []
    phone.context.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_serious(browser: Any, address: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    page = opened(browser, address, color_scheme=scheme)

    def check(state: str) -> None:
        found = axe.Axe().run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        told = [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in serious]
        assert told == [], state

    check("list")
    ask(page, "noise")
    page.locator(".hit .round").first.click()
    until_playing(page)
    page.keyboard.press("l")
    expect(page.locator(".chip")).to_have_count(1)
    until_answered(page)
    check("hits and player")
    page.keyboard.press("?")
    check("help")
    page.keyboard.press("Escape")
    page.locator("#status-button").click()
    expect(page.locator("#broken")).to_be_visible()
    check("index")
    page.context.close()


def test_the_scheme_follows_the_system_until_it_is_chosen(browser: Any, address: str) -> None:
    def ground(page: Any) -> str:
        colour: str = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return colour

    dark, light = (opened(browser, address, color_scheme=s) for s in ("dark", "light"))
    assert ground(dark) != ground(light)
    wanted = ground(light)
    dark.locator("#theme").click()
    assert ground(dark) == wanted
    dark.reload()
    assert ground(dark) == wanted
    for page in (dark, light):
        page.context.close()


def test_a_token_is_asked_for_once(browser: Any, library_index: Path, home: Path) -> None:
    with serving(library_index, home, "--token", "a-long-token") as (url, _):
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(SLOW_MS)
        page.goto(url)
        page.fill("#token", "a-wrong-token")
        page.keyboard.press("Enter")
        expect(page.locator("#login-error")).to_contain_text("not the token")
        page.fill("#token", "a-long-token")
        page.keyboard.press("Enter")
        expect(page.locator(".hit")).to_have_count(16)
        page.reload()
        expect(page.locator(".hit")).to_have_count(16)
        # Asked again, because the cookie is gone, it is sent once.
        asked: list[str] = []
        page.on("request", lambda sent: asked.append(sent.url) if "login" in sent.url else None)
        for number in (1, 2):
            context.clear_cookies()
            page.fill("#q", f"tone {number}")
            page.fill("#token", "a-long-token")
            page.keyboard.press("Enter")
            expect(page.locator("#login")).not_to_be_visible()
            assert len(asked) == number
        context.close()


@pytest.mark.parametrize(("intercept", "shown"), [(50.0, "zebra"), (-50.0, "Nothing here")])
def test_likely_hits_have_percents_and_unlikely_ones_are_the_nearest(
    browser: Any,
    library_index: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    intercept: float,
    shown: str,
) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(home))
    searcher = Searcher.open(str(library_index))
    searcher.calibration = calibration(searcher.model.dimension, intercept)
    with answering(create_app(searcher)) as url:
        page = opened(browser, url)
        page.fill("#q", "zebra")
        expect(page.locator("#summary")).to_have_text(re.compile(shown))
        percent = "100 %" if intercept > 0 else "0 %"
        expect(page.locator(".fit").first).to_contain_text(percent)
        live = page.locator("#live")
        expect(live).to_contain_text("zebra" if intercept > 0 else "nearest")
        page.context.close()


def test_a_recording_that_is_gone_is_told(browser: Any, searcher: Searcher, tmp_path: Path) -> None:
    """As often as it is asked for; and played once it is there again."""
    (path,) = make_recordings(tmp_path / "library", 1)
    store = MemoryStore(searcher.store.manifest)
    index([path.parent], store, searcher.model)
    with answering(create_app(Searcher(searcher.model, store), name="lib")) as address:
        page = opened(browser, address)
        sound = path.read_bytes()
        path.unlink()
        for press in (page.locator(".hit .round").first, page.locator("#toggle")):
            press.click()
            expect(page.locator("#toast")).to_contain_text("is gone")
            page.evaluate("() => { document.querySelector('#toast').hidden = true }")
        path.write_bytes(sound)
        page.locator("#toggle").click()
        until_playing(page)
        page.context.close()


def test_progress_comes_back_after_a_refusal(browser: Any, address: str) -> None:
    """As of a proxy whose server is being started: the browser itself then never asks again."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(SLOW_MS)
    refused: list[str] = []

    def refuse_once(route: Any) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=502, body="starting")

    page.route("**/api/events", refuse_once)
    page.goto(address)
    expect(page.locator("#status-dot")).to_have_class(re.compile("lost"))
    expect(page.locator("#status-dot")).not_to_have_class(re.compile("lost"))
    context.close()
