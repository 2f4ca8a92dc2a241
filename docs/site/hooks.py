"""
What the site has besides the pages of docs/: the pages beside the README, the API, formulas as MathML.

MkDocs calls the functions `on_*`. Griffe, which reads the package without importing it, calls `Docstrings`.
"""

import ast
import logging
import posixpath
import re
import textwrap
from functools import cache
from html import unescape
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel
from pymdownx.slugs import slugify


REPOSITORY = Path(__file__).parents[2]
# Pages of the site whose source is not in docs/
ROOT_PAGES = {"index.md": "README.md"} | {page: page for page in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
PACKAGES = ("trl_entropy", "trl_entropy.rewards", "trl_entropy.etpo", "trl_entropy.rules.looks")
# What the docstrings of the package refer to besides its own names
BASES = ("config.EntropyFlags", "trainer.EntropyControl")
COMMANDS = r"(?:trl-entropy|accelerate|pip|python|make|--)\b"
logger = logging.getLogger("mkdocs.hooks")


@cache
def api() -> dict[str, dict[str, str]]:
    """By page, the path of each name: what a package imports into itself, or the classes of a module."""
    pages = {}
    for package in PACKAGES:
        path = REPOSITORY / package.replace(".", "/")
        tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        names = sorted(alias.name for node in imports for alias in node.names)
        if not path.is_dir():
            names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        pages[f"api/{package}.md"] = {name: f"{package}.{name}" for name in names}
    pages["api/trl_entropy.md"] |= {base.split(".")[-1]: f"trl_entropy.{base}" for base in BASES}
    for page in (REPOSITORY / "docs/methods").glob("*.md"):
        (file,) = (REPOSITORY / "trl_entropy").rglob(f"{page.stem}.py")
        (name,) = re.findall(r"^class (\w+)", file.read_text(), re.M)
        module = file.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".")
        pages[f"methods/{page.name}"] = {name: f"{module}.{name}"}
    return pages


def in_site(path: str) -> str:
    """Where a file of the repository is in the site."""
    roots = {source: page for page, source in ROOT_PAGES.items()}
    return roots.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md")


def links(text: str, page: str) -> list[tuple[str, str]]:
    """The links of a page to files, and where in the repository each leads."""
    folder = posixpath.dirname(ROOT_PAGES.get(page, f"docs/{page}"))
    found = {link for link in re.findall(r"\]\(([^)\s#]+)", text) if ":" not in link}
    return [(link, posixpath.normpath(posixpath.join(folder, link))) for link in found]


def on_config(config):
    """Anchors as on GitHub."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")


def on_files(files, config):
    """Add the pages that are not in docs/: those beside the README, files that a page links to, the API."""
    for page, source in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(REPOSITORY / source).read_text()))
    for page in files.documentation_pages():
        for _, target in links(page.content_string, page.src_uri):
            path, uri = REPOSITORY / target, in_site(target)
            if uri.startswith("source/") and path.exists() and uri not in files.src_uris:
                text = path.read_text() if path.is_file() else "\n".join(sorted(file.name for file in path.iterdir()))
                text = f"---\nsearch: {{exclude: true}}\n---\n# {target}\n\n````{path.suffix[1:]}\n{text}\n````\n"
                files.append(File.generated(config, uri, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    for package in PACKAGES:
        names = api()[f"api/{package}.md"].values()
        text = "\n\n".join([f"# {package}", *(f"::: {name}" for name in names)])
        files.append(File.generated(config, f"api/{package}.md", content=text))


def on_page_markdown(markdown, page, **_):
    """Links as they are in the site, and the class under the page of a method."""
    folder = posixpath.dirname(page.file.src_uri) or "."
    for link, target in links(markdown, page.file.src_uri):
        to = posixpath.relpath(in_site(target), folder)
        markdown = re.sub(rf"\]\({re.escape(link)}(?=[)\s#])", f"]({to}", markdown)
    if page.file.src_uri.startswith("methods/"):
        markdown = re.sub(rf"(?m)^(    .*\n)(?=\n    {COMMANDS})", r"\1\n<!-- equation and command -->\n", markdown)
        (path,) = api()[page.file.src_uri].values()
        markdown += f"\n\n## In code\n\n::: {path}\n    options: {{heading_level: 3, merge_init_into_class: false}}\n"
    return markdown


def on_page_content(html, page, **_):
    """A style of their own for equations in plain text, MathML for those in LaTeX, source not searched."""
    if page.file.src_uri.startswith("methods/"):
        indented = rf'<div class="language-text (?=highlight"><pre><span></span><code>(?!{COMMANDS}))'
        html = re.sub(indented, '<div class="equation ', html)
    for tag, display in (("span", "inline"), ("div", "block")):
        formula = rf'<{tag} class="arithmatex">\\[(\[](.*?)\\[)\]]</{tag}>'
        html = re.sub(formula, lambda found, how=display: mathml(unescape(found[1]), how), html, flags=re.S)
    return html.replace('class="mkdocstrings-source"', 'class="mkdocstrings-source" data-search-exclude')


def mathml(formula: str, display: str) -> str:
    """What a browser shows as a formula."""
    math = convert(formula, display=display)
    if "\\" in math:  # what the converter does not know it lets through
        logger.warning("not understood: %s", formula)
    return math


class Docstrings(griffe.Extension):
    """Markdown of the markup of Hugging Face's docstrings."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            text = obj.docstring.value.replace(r"\\(", r"\(").replace(r"\\)", r"\)")
            text = re.sub(r"\[`~?([\w.]+)`\]", reference, text)
            obj.docstring.value = re.sub(
                r"^(Args|Parameters|Attributes):\n((?:    .*\n?|\n)+)", arguments, text, flags=re.M
            )


def arguments(found: re.Match) -> str:
    """A section of arguments as a list."""
    entries = re.sub(r"^([\w*][\w, *]*)( \(.*\))?:(?: |$)", r"- **`\1`**\2<br>", textwrap.dedent(found[2]), flags=re.M)
    return f"**{found[1].replace('Args', 'Arguments')}**\n\n{entries}\n"


def reference(found: re.Match) -> str:
    """A link, if the name has a place in the site."""
    names = {name: path for page in api().values() for name, path in page.items()}
    *owners, name = found[1].split(".")
    if name in names:
        return f"[`{name}`][{names[name]}]"
    if owners and owners[-1] in names:
        return f"[`{owners[-1]}.{name}`][{names[owners[-1]]}.{name}]"
    return f"`{name}`"
