from pathlib import Path

import yaml


REPOSITORY = Path(__file__).parent.parent
# What docs/site/hooks.py adds to the pages of docs/
ROOT = {"index.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
API = {f"api/trl_entropy{name}.md" for name in ("", ".rewards", ".etpo", ".rules.looks")}


def pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)]


def wrong_pages(listed: list[str], there: set[str]) -> set[str]:
    """Pages that are not listed, not there, or listed twice."""
    return {page for page in there.union(listed) if page not in there or listed.count(page) != 1}


def test_site_lists_every_page_once():
    docs = REPOSITORY / "docs"
    there = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} | ROOT | API
    assert wrong_pages(pages_of(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]), there) == set()


def test_wrong_list_is_found():
    listed = pages_of([{"A": ["a.md", {"b": "b.md"}]}, {"C": [{"c": ["gone.md"]}, "a.md"]}])
    assert listed == ["a.md", "b.md", "gone.md", "a.md"]
    assert wrong_pages(listed, {"a.md", "b.md", "new.md"}) == {"a.md", "gone.md", "new.md"}


def test_page_of_a_method_has_one_file_with_one_class():
    """The site shows the class under the page."""
    for page in (REPOSITORY / "docs" / "methods").glob("*.md"):
        (file,) = (REPOSITORY / "trl_entropy").rglob(f"{page.stem}.py")
        assert file.read_text().count("\nclass ") == 1, file
