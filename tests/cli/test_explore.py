"""`uiat explore`: a saved page, what is refused, and the page in a real browser."""

import json
import re
import shutil

import pytest

from uiat.cli import main
from uiat.explore import answers, load_explorer, save_page, serving

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")


def test_a_saved_page_of_two_runs(trained_runs, tmp_path, capsys, monkeypatch, unchecked):
    monkeypatch.setattr(answers, "STEPS", 1)
    out, runs = tmp_path / "page.html", [str(trained_runs / name) for name in ("uiat", "pgd-at")]
    assert main(["explore", *runs, "--n", "2", "--save", str(out)]) == 0
    assert re.search(r"written: .*page.html \(\d+ kB\)", capsys.readouterr().out)
    facts = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)[1])
    assert facts["models"] == ["uiat", "pgd-at"]
    for words, says in [
        ([], "name 1 to 8 run folders to explore, not 0"),
        ([*runs, "--threat", "L7:1"], "L7"),
        ([*runs, "--save", str(tmp_path / "page.pdf")], "should end in .html"),
    ]:
        assert main(["explore", *words]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def open_page(browser, address, width, scheme):
    """The page at some width, and what it asked for and complained of."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    settle(page)
    return page, asked, said


def picture(page, name):
    return page.evaluate(f"document.querySelector('#{name}').toDataURL()")


def settle(page):
    page.locator("body:not(.waiting) #curve svg[role=img]").wait_for()


def drag(page, position):
    slider = page.locator("#epsilon")
    slider.focus()
    slider.fill(str(position))
    settle(page)


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_in_a_browser(trained_runs, browser, width, scheme, unchecked):
    with serving(load_explorer([trained_runs / "uiat", trained_runs / "pgd-at"])) as site:
        page, asked, said = open_page(browser, site.address, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page must not scroll sideways"
        assert picture(page, "moved") == picture(page, "natural")
        seen = {picture(page, "moved")}
        for position in (8, -8):
            drag(page, position)
            seen.add(picture(page, "moved"))
        assert len(seen) == 3, "the slider moves the picture"
        page.keyboard.press("ArrowRight")
        assert page.evaluate("state.position") == -7, "by the keyboard too"
        page.select_option("#source", label="Universal perturbation of uiat (Linf 0.1)")
        page.select_option("#label", "3")
        drag(page, -16)
        assert picture(page, "moved") not in seen
        page.get_by_label("Draw an image yourself").check(force=True)
        pad = page.locator("#pad")
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 20, steps=5)
        page.mouse.up()
        pad.focus()
        for key in (" ", "ArrowRight", "ArrowRight", " "):
            page.keyboard.press(key)
        settle(page)
        assert sum(page.evaluate("Array.from(pad.pixels())")) > 1000
        assert said == []
        assert {address.split("?")[0] for address in asked} <= {
            f"http://127.0.0.1:{site.port}/",
            f"http://127.0.0.1:{site.port}/answer",
            "data:,",
        }
        page.context.route("**/answer", lambda route: route.abort())
        page.select_option("#label", "5")
        page.get_by_text("the server does not answer").wait_for()


@pytest.mark.slow
@needs_browser
def test_a_saved_page_in_a_browser(trained_runs, browser, tmp_path, unchecked):
    save_page(load_explorer([trained_runs / "uiat"], n=3), tmp_path / "page.html")
    page, asked, said = open_page(browser, (tmp_path / "page.html").as_uri(), 390, "light")
    drag(page, 8)
    before = picture(page, "moved")
    page.select_option("#source", "1")
    page.select_option("#label", "4")
    drag(page, -12)
    assert picture(page, "moved") not in (before, picture(page, "natural"))
    assert said == []
    assert all(address.startswith(("file:", "data:")) for address in asked)
