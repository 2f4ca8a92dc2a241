"""What holds for the package as a whole: which file may import what, and what a method consists of."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from processes import run_script
from trl import DatasetMixtureConfig, ModelConfig, TrlParser

import trl_entropy
from trl_entropy import EntropyGRPOConfig
from trl_entropy.commands.grpo import Flags, GRPOArguments, parse
from trl_entropy.config import EntropyFlags
from trl_entropy.control.laws import LAWS
from trl_entropy.control.presets import presets
from trl_entropy.data import EMBEDDED_POLICY
from trl_entropy.rollouts import ROLLOUT_RULES
from trl_entropy.rules.bonuses import BONUSES
from trl_entropy.rules.terms import TERMS
from trl_entropy.rules.weights import WEIGHTS


REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "trl_entropy"

# Files and folders of the package from the lowest floor to the highest. An import goes down; within a floor it goes to
# the left, and anywhere within a folder.
FLOORS = (
    ("checks", "written"),
    ("rules",),
    ("control", "measures", "rollouts", "rewards", "data"),
    ("families", "objective", "_seam", "refusals", "build", "config"),
    ("callbacks", "trainer", "wrap", "async_grpo", "etpo"),
    ("commands", "integrations"),
    ("lab", "__main__"),
)
FLOOR = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}
# Files of the seam; an import among them goes to the left
SEAM = (
    "error",
    "advantages",
    "sharding",
    "vocabulary",
    "trimming",
    "fast_step",
    "state",
    "head",
    "means",
    "rollouts",
    "facts",
    "packed",
    "checkpoints",
    "seam",
    "hooks",
    "prefetching",
    "stepwise",
    "__init__",
)
HEAVY = ("trl", "transformers")


def floors_of(page: str) -> list[set[str]]:
    """The floors that a page draws, from the lowest."""
    lines = re.findall(r"^    (\d)  (.+)$", page, re.M)
    return [set(re.findall(r"\w+(?=\.py|/)", line)) for _, line in sorted(lines)]


def test_floors_of_the_page_are_the_real_ones():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    assert floors_of(page) == [set(names) for names in FLOORS]
    assert floors_of(page.replace("  written.py", "")) != [set(names) for names in FLOORS]


def part_of(path: Path) -> str:
    """The entry of the table of floors that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> dict[Path, ast.Module]:
    found = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
    assert len(found) > 25
    return found


def own_imports(path: Path, tree: ast.Module) -> set[str]:
    """The entries of the table that a file imports, in functions too; the root itself (`from . import x`) is none."""
    package = ("trl_entropy", *path.relative_to(PACKAGE).parent.parts)
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join((*base, *([node.module] if node.module else [])))
            modules |= {f"{start}.{alias.name}" for alias in node.names}
    parts = {module.split(".")[1] for module in modules if module.startswith("trl_entropy.")}
    return {part for part in parts if part in FLOOR or (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists()}


def upward_imports(path: Path, tree: ast.Module) -> set[str]:
    part = part_of(path)
    return {other for other in own_imports(path, tree) if other != part and FLOOR[other] > FLOOR[part]}


def wrong_imports_of_the_seam(file: str, tree: ast.Module) -> set[str]:
    """The files of the seam that one of them imports from the right of it."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            imported |= {node.module} if node.module else {alias.name for alias in node.names}
    return {other for other in imported if SEAM.index(other) >= SEAM.index(file)}


def private_names_of_others(tree: ast.Module, own: set[str]) -> set[str]:
    """Attributes with one leading underscore that the package does not define, less some of the standard library."""
    own = own | {"_replace", "_asdict", "_fields", "_exit"}
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr) and node.attr not in own
    }


def defined_names(tree: ast.Module) -> set[str]:
    """Names of functions and classes, and attributes that are assigned."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute):
                names.add(target.attr)
            elif isinstance(target, ast.Name):
                names.add(target.id)
    return names


def modules_of(parts: Callable[[str], bool]) -> list[str]:
    """What is imported to load some parts of the package."""
    return [
        ".".join(("trl_entropy", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in sources()
        if part_of(path) not in ("__init__", "__main__") and parts(part_of(path))
    ]


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The modules that a fresh interpreter has loaded after each of several imports, one after another."""
    imports = {
        "the package": ["trl_entropy"],
        "the lower floors": modules_of(lambda part: FLOOR[part][0] <= 2),
        "the core": modules_of(lambda part: part not in ("lab", "integrations")),
        "the lab": ["trl_entropy.lab.live"],
    }
    assert [len(names) > least for names, least in zip(imports.values(), (0, 15, 80, 0), strict=True)] == [True] * 4
    steps = ("".join(f"import {name}\n" for name in names) + "print(*sys.modules)" for names in imports.values())
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    script = [sys.executable, "-c", "import sys\n" + "\n".join(steps)]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=True)
    return dict(zip(imports, map(set, map(str.split, done.stdout.splitlines())), strict=True))


# Floors


def test_every_file_has_a_floor():
    assert {part_of(path) for path in sources()} - {"__init__"} == set(FLOOR)


def test_imports_go_down():
    files = {path: tree for path, tree in sources().items() if part_of(path) != "__init__"}
    assert {path.name: found for path, tree in files.items() if (found := upward_imports(path, tree))} == {}


def test_root_imports_nothing_of_the_package_on_its_own():
    path = PACKAGE / "__init__.py"
    tree = ast.parse(path.read_text())
    for_readers = [node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING"]
    assert len(for_readers) == 1
    tree.body.remove(for_readers[0])
    assert own_imports(path, tree) == set()


@pytest.mark.parametrize(
    ("file", "code", "found"),
    [
        ("checks.py", "from .rules import compose", {"rules"}),
        ("rules/tokens.py", "from ..control.knobs import Knob", {"control"}),
        ("control/knobs.py", "from ..measures import Idle", {"measures"}),  # to the right within a floor
        ("rules/weights/sign.py", "def f():\n    from ...trainer import EntropyGRPOTrainer", {"trainer"}),
        ("rules/weights/sign.py", "from ... import config", {"config"}),
        ("rules/compose.py", "import trl_entropy.trainer", {"trainer"}),
        ("rules/compose.py", "from trl_entropy.lab.compare import compare", {"lab"}),
        ("rules/weights/__init__.py", "from .sign import Sign\nfrom ..tokens import Tokens", set()),
        ("control/controller.py", "from .knobs import Knob\nfrom ..checks import bind\nimport trl", set()),
    ],
)
def test_a_wrong_import_is_found(file, code, found):
    assert upward_imports(PACKAGE / file, ast.parse(code)) == found


def test_imports_of_the_seam_go_down():
    files = {path.stem: tree for path, tree in sources().items() if path.parent == PACKAGE / "_seam"}
    assert files.keys() == set(SEAM)
    assert {file: found for file, tree in files.items() if (found := wrong_imports_of_the_seam(file, tree))} == {}


@pytest.mark.parametrize(
    ("file", "code", "found"),
    [
        ("state", "from .error import SeamError\nfrom ..rules.tokens import Tokens", set()),
        ("state", "def f():\n    from .seam import Seam", {"seam"}),
        ("facts", "from . import checkpoints, error", {"checkpoints"}),
    ],
)
def test_a_wrong_import_of_the_seam_is_found(file, code, found):
    assert wrong_imports_of_the_seam(file, ast.parse(code)) == found


def test_lower_floors_load_neither_trl_nor_transformers(loaded):
    assert not loaded["the lower floors"] & set(HEAVY)


def test_loading_trl_would_be_seen(loaded):
    assert set(HEAVY) <= loaded["the core"]


def test_package_itself_loads_nothing(loaded):
    assert not loaded["the package"] & {"torch", *HEAVY}


# The core and the lab


def third_party(tree: ast.Module) -> set[str]:
    """The packages of others that a file imports, in functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"trl_entropy"}


# Where the name of a package is not that of its import; what brings a package that is not named itself
DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
BROUGHT = {"latex2sympy2_extended": "math-verify", "sympy": "math-verify", "tokenizers": "transformers", "vllm": "trl"}


def undeclared(imported: set[str], declared: list[str]) -> set[str]:
    names = {re.match(r"[\w-]+", requirement)[0].replace("-", "_") for requirement in declared}
    of = {name: BROUGHT.get(name, DISTRIBUTIONS.get(name, name)).replace("-", "_") for name in imported}
    return {name for name, distribution in of.items() if distribution not in names}


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    inside = set().union(*(third_party(tree) for path, tree in sources().items() if part_of(path) == "integrations"))
    others = ("lab", "integrations")
    core = set().union(*(third_party(tree) for path, tree in sources().items() if part_of(path) not in others))
    lab = set().union(*(third_party(tree) for path, tree in sources().items() if part_of(path) == "lab"))
    asked_for = [*extras["data"], *extras["smollm2"]]  # by name, with what to install where they are missing
    assert undeclared(core, project["dependencies"] + asked_for) == set()
    assert undeclared(lab, project["dependencies"] + extras["lab"] + asked_for) == set()
    assert undeclared(inside, project["dependencies"]) == {"axolotl", "pydantic"}  # theirs, who load these files
    assert undeclared({"matplotlib"}, project["dependencies"]) == {"matplotlib"}
    assert core & {"matplotlib", "rich", "scipy", "sklearn", "sacrebleu"} == set()


def of_lab(modules: set[str]) -> list[str]:
    return [name for name in modules if name.startswith("trl_entropy.lab")]


def test_core_loads_nothing_of_the_lab(loaded):
    assert of_lab(loaded["the core"]) == []
    assert of_lab(loaded["the lab"]) != []


def test_a_public_name_of_the_lab_says_what_it_needs(monkeypatch):
    monkeypatch.delitem(sys.modules, "trl_entropy.lab.live", raising=False)
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with pytest.raises(ImportError, match=r"LiveView needs rich: pip install 'trl-entropy\[lab\]'"):
        from trl_entropy import LiveView  # noqa: F401


@pytest.mark.parametrize(
    ("arguments", "missing", "what"),
    [
        (["report", "out"], "matplotlib", "trl-entropy report"),
        (["compare", "a.yaml"], "rich", "trl-entropy compare"),
        (["grpo", "--live_view", "true", "--output_dir", "out", "--report_to", "none"], "rich", "live_view"),
    ],
)
def test_a_missing_extra_is_one_line(tmp_path, arguments, missing, what):
    script = (
        "import sys\n"
        f"of_extra = [name for name in [{missing!r}, *sys.modules] if name.split('.')[0] == {missing!r}]\n"
        "sys.modules.update(dict.fromkeys(of_extra))\n"  # an import of one fails
        f"from trl_entropy.commands.cli import main\nmain({arguments})"
    )
    (tmp_path / "main.py").write_text(script)
    done = run_script(tmp_path / "main.py")
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, last) == (
        2,
        f"trl-entropy {arguments[0]}: error: {what} needs {missing}: pip install 'trl-entropy[lab]'",
    )


def test_only_the_seam_names_private_attributes_of_trl():
    trees = sources()
    own = set().union(*(defined_names(tree) for tree in trees.values()))
    # what the seam overrides belongs to TRL: nobody else may name it
    seam = ast.Module([tree for path, tree in trees.items() if part_of(path) == "_seam"], type_ignores=[])
    theirs = {node.name for node in ast.walk(seam) if isinstance(node, ast.FunctionDef)}
    theirs &= {name for base in importlib.import_module("trl").GRPOTrainer.__mro__ for name in vars(base)}
    assert "_compute_loss" in theirs
    found = {
        path.name: names
        for path, tree in trees.items()
        if part_of(path) != "_seam" and (names := private_names_of_others(tree, own - theirs))
    }
    assert found == {}
    assert "_metrics" in private_names_of_others(seam, own - theirs)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("self._metrics['train']", {"_metrics"}),
        ("trainer._buffered_inputs = None", {"_buffered_inputs"}),
        ("super()._compute_loss(model, inputs)", {"_compute_loss"}),
        ("self._mine + self.__dict__ + self.public", set()),
    ],
)
def test_a_private_name_of_others_is_found(code, found):
    assert private_names_of_others(ast.parse(code), own={"_mine"}) == found


# One method, one name


# Where the methods of a kind are
HOMES = {"weights": "rules", "bonuses": "rules", "terms": "rules", "laws": "control"}
KINDS = {"weights": WEIGHTS, "bonuses": BONUSES, "terms": TERMS, "rollouts": ROLLOUT_RULES, "laws": LAWS}
CATALOGUE = {(kind, name): entry for kind, entries in KINDS.items() for name, entry in entries.items()}
# Names that are settings of another method: they have its file, test and page, and a recipe of their own
SETTINGS = {"constant": "schedule", "stage": "schedule", "switch": "schedule"}
# What the folders hold besides methods
PARTS = {"laws": {"law"}, "rollouts": {"batch", "plan", "rule", "stream"}}
every_method = pytest.mark.parametrize(("kind", "name"), sorted(CATALOGUE))


def home(kind: str) -> str:
    """The package of a kind, below `trl_entropy`."""
    return f"{HOMES[kind]}.{kind}" if kind in HOMES else kind


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def missing_artefacts(kind: str, name: str, entry: Callable, root: Path) -> list[str]:
    """What a method lacks of: source, class (of a setting, function) of that name, test, recipe, page."""
    whose = SETTINGS.get(name, name)
    files = [
        f"trl_entropy/{home(kind).replace('.', '/')}/{whose}.py",
        f"tests/{kind}/test_{whose}.py",
        f"recipes/{name}.yaml",
        f"docs/methods/{whose}.md",
    ]
    missing = [file for file in files if not (root / file).is_file()]
    named = entry.__module__ == f"trl_entropy.{home(kind)}.{whose}" and snake_case(entry.__name__) == name
    if not named or inspect.isclass(entry) == (name in SETTINGS):
        missing.append(f"{entry.__module__}.{entry.__name__}")
    return missing


@every_method
def test_method_has_its_five_artefacts(kind, name):
    assert missing_artefacts(kind, name, CATALOGUE[kind, name], REPOSITORY) == []


def test_missing_artefacts_are_found(tmp_path):
    assert missing_artefacts("weights", "gentle", WEIGHTS["sign"], tmp_path) == [
        "trl_entropy/rules/weights/gentle.py",
        "tests/weights/test_gentle.py",
        "recipes/gentle.yaml",
        "docs/methods/gentle.md",
        "trl_entropy.rules.weights.sign.Sign",
    ]
    assert missing_artefacts("laws", "stage", LAWS["schedule"], REPOSITORY) == [
        "trl_entropy.control.laws.schedule.Schedule"
    ]


@pytest.mark.parametrize(
    ("camel", "snake"),
    [("BangBang", "bang_bang"), ("PI", "pi"), ("ConfidentSign", "confident_sign"), ("WReinforce", "w_reinforce")],
)
def test_snake_case(camel, snake):
    assert snake_case(camel) == snake


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_file_is_in_the_catalogue(kind):
    files = (
        {path.stem for path in (PACKAGE / home(kind).replace(".", "/")).glob("*.py")}
        - {"__init__"}
        - PARTS.get(kind, set())
    )
    assert files == {name for other, name in CATALOGUE if other == kind} - SETTINGS.keys()


@pytest.mark.parametrize("catalogue", KINDS.values(), ids=KINDS)
def test_catalogue_is_sorted(catalogue):
    assert list(catalogue) == sorted(catalogue)


def imported_methods(path: Path, tree: ast.Module) -> set[str]:
    """The files of methods that a file imports from."""
    package = ("trl_entropy", *path.relative_to(PACKAGE).parent.parts)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    modules = {".".join([*package[: len(package) - node.level + 1], node.module or ""]) for node in imports}
    return modules & {entry.__module__ for entry in CATALOGUE.values()}


def test_no_method_imports_another_and_no_measure_imports_one():
    methods = {entry.__module__ for entry in CATALOGUE.values()}
    files = {
        path: tree
        for path, tree in sources().items()
        if part_of(path) == "measures" or ".".join(path.relative_to(REPOSITORY).with_suffix("").parts) in methods
    }
    assert len(files) > 40
    assert {path.name: found for path, tree in files.items() if (found := imported_methods(path, tree))} == {}
    wrong = ast.parse("from ..weights.sign import Sign\nfrom ..rule import Rule")
    assert imported_methods(PACKAGE / "rules/terms/sent.py", wrong) == {"trl_entropy.rules.weights.sign"}


@every_method
def test_method_is_a_frozen_dataclass_or_a_setting_of_one_with_its_paper(kind, name):
    entry = CATALOGUE[kind, name]
    assert re.search(r"Reference: .*\]\(https://huggingface\.co/papers/\d{4}\.\d{5}\)", inspect.getdoc(entry), re.S)
    if name in SETTINGS:
        assert type(entry()) is CATALOGUE[kind, SETTINGS[name]]
        return
    assert entry.__dataclass_params__.frozen
    module = importlib.import_module(entry.__module__)
    assert inspect.getdoc(entry).splitlines()[0] == module.__doc__.strip().splitlines()[0]


# Exports, version, flags


def test_exported_names_are_sorted_and_can_be_imported():
    assert trl_entropy.__all__ == sorted(trl_entropy.__all__)
    assert set(trl_entropy.__all__) <= set(dir(trl_entropy))
    for name in trl_entropy.__all__:
        assert getattr(trl_entropy, name).__name__ == name


def test_unknown_export_is_refused():
    with pytest.raises(AttributeError, match="module 'trl_entropy' has no attribute 'nothing'"):
        trl_entropy.nothing  # noqa: B018


def test_version_is_that_of_the_change_log():
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] == trl_entropy.__version__


def documented_flags(docstring: str) -> dict[str, str]:
    """The text of every parameter of a docstring, as one line."""
    entries = re.split(r"^    (\w+) \(.*\):\n", inspect.cleandoc(docstring), flags=re.M)[1:]
    texts = (re.split(r"\n\n", text)[0] for text in entries[1::2])
    return dict(zip(entries[::2], (" ".join(text.split()) for text in texts), strict=True))


def test_help_of_every_flag_is_its_text_in_the_docstring():
    own = {field.name: field.metadata["help"] for field in fields(EntropyFlags)}
    assert len(own) == 20
    assert own == documented_flags(EntropyFlags.__doc__)


def test_help_of_entropy_control_names_every_bundled_method():
    assert {*presets()} <= {*re.findall(r"\w+", documented_flags(EntropyFlags.__doc__)["entropy_control"])}


def test_default_of_every_flag_is_the_one_in_the_docstring():
    documented = dict(re.findall(r"^\s+(\w+) \(.*defaults to `(.*)`\):$", EntropyFlags.__doc__, re.M))
    for field in fields(EntropyFlags):
        assert documented.get(field.name, "None").strip('"') == str(field.default), field.name


def test_documented_flags_are_read():
    docstring = """
    A config.

    Parameters:
        one (`int`):
            First
            line.
        two (`str`, *optional*, defaults to `"x"`):
            Second.

    Raises nothing.
    """
    assert documented_flags(docstring) == {"one": "First line.", "two": "Second."}


def test_trainer_stays_small():
    assert len((PACKAGE / "trainer.py").read_text().splitlines()) < 175


# Recipes


def recipes(root: Path = REPOSITORY / "recipes") -> list[Path]:
    others = (root / "accelerate", root / "axolotl", root / "etpo")  # of its launcher, of Axolotl, of another verb
    return sorted(path for path in root.rglob("*.yaml") if path.parent not in others)


def parse_recipe(path: Path) -> Flags:
    return parse(["--config", str(path), "--bf16", "false", "--use_cpu"])


def test_there_are_recipes():
    assert len(recipes()) > 0


@pytest.mark.parametrize("path", recipes(), ids=lambda path: path.stem)
def test_recipe_is_read(path):
    if "base" in yaml.safe_load(path.read_text()):
        flags = parse_recipe(path)
        assert flags.model.model_name_or_path == str(EMBEDDED_POLICY)
        training = flags.training
    else:  # complete, so TRL's own parser reads it too
        parser = TrlParser((GRPOArguments, EntropyGRPOConfig, ModelConfig, DatasetMixtureConfig))
        training = parser.parse_args_and_config(["--config", str(path), "--bf16", "false", "--use_cpu"])[1]
    assert training.output_dir == f"out/{path.stem}"


def test_recipe_with_an_unknown_flag_is_refused(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("output_dir: out\nno_such_flag: 1\n")
    with pytest.raises(ValueError, match="no_such_flag"):
        parse_recipe(path)
