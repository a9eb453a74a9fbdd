"""The page in a real browser, where one is installed: on a phone, on a screen and on paper."""

import json
import re
import shutil
import subprocess
import zlib
from html import escape

import pytest

from support.run_folders import ACCURACY, make_samples, pages, write_run
from uiat.report import write_report

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
# What Chromium itself asks for when it starts, whatever the page; what the page asks for is asked of the page too.
ITS_OWN = re.compile(r"https?://[\w.-]*\.(?:google|googleapis|gstatic|gvt1)\.com/")


# The page in a frame of the width of a phone or of a screen, as windows have a least width; and what can be seen of it.
PROBE = """<!DOCTYPE html><link rel="icon" href="data:,"><body style="margin:0">
<iframe style="width:WIDTHpx;height:1000px;border:0" srcdoc="PAGE"></iframe><pre id="probe"></pre><script>
onload = () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, width = frame.contentWindow.innerWidth;
  const table = page.querySelector("table.sortable"), head = [...table.querySelectorAll("th button")];
  const rows = () => [...table.querySelectorAll("tbody tr")].map(row => row.cells[1].dataset.sort);
  const shown = [...page.querySelectorAll("figure, figure svg, figure img")].map(e => e.getBoundingClientRect());
  const found = { width, wide: page.documentElement.scrollWidth, figures: shown.length, buttons: head.length };
  found.hidden = shown.filter(r => r.width < 20 || r.height < 20 || r.left < 0 || r.right > width + 1).length;
  found.focusable = head.every(button => { button.focus(); return page.activeElement === button; });
  head[1].click(); found.down = rows(); head[1].click(); found.up = rows();
  found.sort = page.querySelectorAll("th[aria-sort=ascending]").length;
  const asked = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
  found.asked = asked.filter(name => !name.startsWith("data:"));
  document.querySelector("#probe").textContent = JSON.stringify(found);
};
</script>"""


def browse(html, width, tmp_path):
    """The probe's findings at some width, the console's lines, and the addresses that were asked for."""
    page, log = tmp_path / f"{width}.html", tmp_path / f"net-{width}.json"
    page.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", escape(html)))
    quiet = ["--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"]
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}"),
        *("--enable-logging=stderr", "--window-size=1400,1100", f"--log-net-log={log}", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    found = re.search(r'<pre id="probe">(\{.*?\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = re.findall(r'"url":"((?:https?|ftp|wss?):[^"]*)"', log.read_text(errors="replace"))
    return json.loads(found[1]), said, [address for address in asked if not ITS_OWN.match(address)]


@pytest.mark.skipif(BROWSER is None, reason="no browser: needs chromium, chromium-browser or google-chrome on PATH")
def test_in_a_browser(runs, tmp_path):
    html, _ = pages(runs, tmp_path / "report.html", samples=make_samples(runs[2]))
    for width in (390, 1280):
        found, said, asked = browse(html, width, tmp_path)
        assert said == []
        assert asked == found["asked"] == []
        assert found["width"] == width >= found["wide"], "the page must not scroll sideways"
        assert (found["figures"] > 20, found["hidden"]) == (True, 0)
        headings = html.count('<th scope="col"', 0, html.index("</thead>"))
        assert (found["buttons"], found["focusable"], found["sort"]) == (headings, True, 1)
        assert found["down"] == sorted(found["up"], reverse=True)


@pytest.mark.skipif(BROWSER is None, reason="no browser: needs chromium, chromium-browser or google-chrome on PATH")
def test_on_paper(tmp_path):
    settings = [
        {"name": f"method-{i}", "inverse": {"kind": "universal" + "-" * i, "start_radius": i}} for i in range(12)
    ]
    made = [
        write_run(
            tmp_path / str(i), name=f"a-rather-long-{o['name']}", objective=o, accuracy=ACCURACY | {"pgd-50-10": 0.5}
        )
        for i, o in enumerate(settings)
    ]
    out = tmp_path / "report.html"
    write_report(made, out, samples=make_samples(made[0]))
    pdf = tmp_path / "report.pdf"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [BROWSER, *quiet, f"--print-to-pdf={pdf}", out.as_uri()], capture_output=True, check=True, timeout=200
    )
    content = pdf.read_bytes()
    assert re.search(rb"/MediaBox \[0 0 59[45]\S* 84[12]", content), "A4"
    # A browser shrinks pages on which something is too wide. A sheet begins with its own scale, 300 dots an inch, and
    # the first scale after it is that of the page: 3.125 dots for each of the 96 pixels in an inch.
    sheets = [part for part in inflated(content) if re.match(rb"\.2[34]\d* 0 0 -\.2[34]", part)]
    scales = {float(re.search(rb"\n(\S+) 0 0 \1 \S+ \S+ cm", sheet)[1]) for sheet in sheets}
    assert len(sheets) > 2
    assert scales == {3.125}, "printed smaller than it is: something is wider than the paper"


def inflated(content):
    """The streams of a PDF that can be inflated."""
    for found in re.finditer(rb"stream\r?\n", content):
        try:
            yield zlib.decompressobj().decompress(content[found.end() :])
        except zlib.error:
            continue
