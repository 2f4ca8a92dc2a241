"""What a browser makes of a page; run with `make test-browser`."""

import json
import re
import shutil
import struct
import subprocess
from html import escape
from pathlib import Path

import pytest
from made import full

from trl_entropy.lab.report import write
from trl_entropy.lab.report.figures import FIGURES
from trl_entropy.lab.report.statistics import Arm


pytestmark = pytest.mark.browser

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# A page in a frame as narrow as a phone, which a window cannot be. Its script measures the boxes of the
# figures and of their texts, and whether the page scrolls sideways
FRAME = """<!DOCTYPE html>
<iframe srcdoc="{page}" style="border: 0; width: {width}px; height: 9000px"></iframe>
<script>
const box = element => {{ const r = element.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; }};
onload = () => {{
  const page = document.querySelector("iframe").contentDocument, figures = [...page.querySelectorAll("svg")];
  document.body.dataset.found = JSON.stringify({{
    figures: figures.map(box),
    drawn: figures.map(svg => {{ const b = svg.getBBox(); return [b.width, b.height]; }}),
    texts: figures.map(svg => [...svg.querySelectorAll("text")].map(box)),
    width: page.documentElement.clientWidth,
    scroll: page.documentElement.scrollWidth,
  }});
  console.error("measured");
}};
</script>
"""


def browse(page: Path, width: int, *flags: str) -> subprocess.CompletedProcess:
    """Open a page in a window of that width; the console's messages are on stderr."""
    program = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    assert program is not None, f"this test needs one of {', '.join(CHROMIUM)} on the PATH"
    command = [
        program,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    command += [f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},4000", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def console(stderr: str) -> list[str]:
    return re.findall(r"CONSOLE[^\]]*\] (.*?)(?: \(\d+\))?$", stderr, re.M)


@pytest.fixture(params=["one run", "three arms"], scope="module")
def page(request, tmp_path_factory) -> tuple[Path, int]:
    """A page with everything, and how many figures it has."""
    if request.param == "one run":
        arms, figures = [Arm("a", [full()])], len(FIGURES)
    else:
        names = ("plain", "a name of more than a few characters", "seeds")
        arms = [Arm(name, [full(f"{name}{seed}", scale=1 + seed / 5) for seed in range(2)]) for name in names]
        figures = len(FIGURES) - 2  # two are of a single run only
    return write(arms, tmp_path_factory.mktemp("page") / "report.html"), figures


@pytest.mark.parametrize("width", [1280, 400], ids=["desktop", "phone"])
def test_page_in_a_browser(page, width):
    path, figures = page
    frame = path.with_name(f"frame_{width}.html")
    frame.write_text(FRAME.format(page=escape(path.read_text(encoding="utf-8")), width=width), encoding="utf-8")
    done = browse(frame, 1600, "--dump-dom")
    assert console(done.stderr) == ['"measured", source: file://' + str(frame)]  # and so it would be seen
    found = json.loads(re.search(r'data-found="([^"]*)"', done.stdout)[1].replace("&quot;", '"'))
    assert found["width"] == width
    assert found["scroll"] <= width
    assert len(found["figures"]) == figures
    for figure, drawn, texts in zip(found["figures"], found["drawn"], found["texts"], strict=True):
        assert min(figure[2:]) > 100
        assert min(drawn) > 50
        assert len(texts) > 5
        assert all(height > 7 for *_, height in texts)  # pixels: still read on a phone
        left, top, wide, high = figure
        for x, y, w, h in texts:  # no text is cut off by the edge of its figure
            assert left - 1 <= x
            assert x + w <= left + wide + 1
            assert top - 1 <= y
            assert y + h <= top + high + 1


@pytest.mark.parametrize("width", [1280, 400], ids=["desktop", "phone"])
def test_screenshot_and_console(page, width):
    path, _ = page
    picture = path.with_name(f"{width}.png")
    done = browse(path, width, f"--screenshot={picture}")
    assert console(done.stderr) == []
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (width, 4000)
