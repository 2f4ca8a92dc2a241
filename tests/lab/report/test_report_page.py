import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made import SCORES, SETTINGS, STEPS, everything, full, rows, write_log, write_state

from trl_entropy.commands import cli
from trl_entropy.lab.report import read, write
from trl_entropy.lab.report.figures import FIGURES
from trl_entropy.lab.report.page import NO_SETTINGS, NOTHING, page
from trl_entropy.lab.report.statistics import Arm


OF_A_SINGLE_RUN = {"quadrants", "answers"}
VOID = {"meta", "br"}


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if self.open and self.open[-1] in ("style", "text") else data + " "

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def write_full(folder: Path, **settings) -> Path:
    """The folder of a run that has logged all that there is."""
    each = [{"step": k + 1, **{key: values[k] for key, values in everything().items()}} for k in range(STEPS)]
    run = {"settings": {**SETTINGS, "max_steps": STEPS, **settings}, "versions": {"trl": "1.16.0"}, "step": 0}
    return write_log(folder, *each, run=run)


def written(*paths: Path, output: Path) -> Page:
    return Page(write(read(paths), output).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A comparison of two arms with two seeds that have everything, and pages of one of them and of all."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        for name, beta in (("plain", 0.0), ("held", 0.1)):
            write_full(folder / f"seed{seed}" / name, beta=beta, seed=seed)
        (folder / f"seed{seed}" / "compare.json").write_text(json.dumps({"plain": SCORES, "held": SCORES}))
    written(folder / "seed1" / "plain", output=folder / "pages" / "one.html")
    written(folder / "seed1", folder / "seed2", output=folder / "pages" / "two.html")
    return folder


@pytest.fixture(params=["one", "two"])
def text(folder, request) -> str:
    return (folder / "pages" / f"{request.param}.html").read_text(encoding="utf-8")


def test_page_of_one_run_has_every_figure(folder):
    read = Page((folder / "pages" / "one.html").read_text(encoding="utf-8"))
    assert len(read.of("svg")) == len(FIGURES)
    pictures = {path.name for path in (folder / "pages").glob("one_*.png")}
    assert pictures == {f"one_{name}.png" for name in FIGURES} == {link["href"] for link in read.of("a")}
    assert "Entropy of plain" in read.text
    assert "finished at step 60 of 60" in read.text
    assert "trl 1.16.0" in read.text


def test_page_of_arms_has_their_figures_and_what_differs(folder):
    read = Page((folder / "pages" / "two.html").read_text(encoding="utf-8"))
    assert len(read.of("svg")) == len(FIGURES) - len(OF_A_SINGLE_RUN)
    assert "4 runs, 2 arms" in read.text
    assert "Between the arms" not in read.text  # they are equal
    assert re.search(r"setting\s+plain\s+held\s+beta\s+0\s+0\.1\s+How the runs ended", read.text)


def test_page_needs_nothing_beside_it(text):
    read = Page(text)
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    assert not {"script", "link", "img", "iframe", "object", "image"} & {tag for tag, _ in read.elements}
    assert "src" not in {key for _, attributes in read.elements for key in attributes}


def test_ids_are_unique_and_every_svg_is_described(text):
    read = Page(text)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
    labels = [svg["aria-label"] for svg in read.of("svg")]
    assert len(set(labels)) == len(labels) > 5
    assert all("plain" in label for label in labels)
    assert read.of("meta")[1]["name"] == "viewport"


def test_page_that_loads_something_would_be_seen():
    read = Page('<p><img src="https://x.y"><a href="z">z</a></p>'.replace("<img", "<br"))
    assert [key for _, attributes in read.elements for key in attributes] == ["src", "href"]
    with pytest.raises(AssertionError):
        Page("<p><b></p>")


def test_everything_of_a_run_is_escaped():
    evil = '<script>alert("x")<b>&$title'
    settings = {**SETTINGS, evil: evil, "controllers": {evil: {"knob": evil}}}
    more = {f"controllers/{evil}/target": [0.3] * STEPS, f"knobs/{evil}": [0.1] * STEPS}
    scores = {"before": {evil: 0.9}, "after": {evil: 0.1}}
    run = full(evil, evil, more=more, settings=settings, scores=scores, versions={evil: evil})
    text = page([Arm(evil, [run]), Arm("b", [full("b")])], {"entropy": ("<svg></svg>", f"{evil}.png")})
    read = Page(text)
    assert not {"script", "b"} & {tag for tag, _ in read.elements}
    # title and heading, summary, heading and texts of its findings, settings, folder and name, version
    assert read.text.count(evil) > 12


def test_page_of_too_little_says_so(tmp_path):
    found = written(write_state(tmp_path / "a", *rows(3, entropy=0.5)), output=tmp_path / "a.html")
    assert NOTHING in found.text
    assert NO_SETTINGS in found.text
    assert len(found.of("svg")) == 1


def test_runs_that_have_not_begun_are_left_out(tmp_path, capsys):
    write_log(tmp_path / "runs" / "new", run={"settings": {}})
    write_log(tmp_path / "runs" / "old", *rows(3, entropy=0.5))
    assert "1 run, 1 arm" in written(tmp_path / "runs", output=tmp_path / "a.html").text
    assert "left out, no step is logged yet: new" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no step is logged yet in .*new"):
        read([tmp_path / "runs" / "new"])


# The command


def test_command_writes_page_and_table(folder, tmp_path, capsys):
    cli.main(["report", str(folder / "seed1" / "held"), "--output", str(tmp_path / "new" / "page.html")])
    out = capsys.readouterr().out
    assert f"report: {tmp_path / 'new' / 'page.html'}" in out
    assert "0.68 → 0.24" in out
    assert (tmp_path / "new" / "page.html").is_file()


def test_command_without_runs_ends_with_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(tmp_path / "gone")])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("trl-entropy report: error: '")
    assert err.count("\n") == 1


def test_page_that_cannot_be_written_ends_with_one_line(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(folder / "seed1" / "held"), "--output", str(tmp_path)])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"trl-entropy report: error: '{tmp_path}' is a folder: give the path of a file\n"


def loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    return set(done.stdout.split())


def test_report_loads_neither_torch_nor_trl():
    assert not loaded("import trl_entropy.lab.report") & {"torch", "trl", "transformers", "scipy"}
    assert "torch" in loaded("import trl_entropy.measures")
