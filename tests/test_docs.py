import ast
import builtins
import contextlib
import inspect
import io
import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from test_tokens import ACTING
from toy import build_trainer, even_length, sums_with_columns
from trl import GRPOTrainer

import trl_entropy
from study import __main__ as study
from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer, etpo, rewards
from trl_entropy.build import SECTIONS
from trl_entropy.commands import cli
from trl_entropy.commands.grpo import prepare
from trl_entropy.commands.ls import summary_line
from trl_entropy.control.laws import LAWS
from trl_entropy.control.presets import presets
from trl_entropy.control.targets import Target
from trl_entropy.lab.data import VERBS as STEPS
from trl_entropy.rewards import MathVerifyReward
from trl_entropy.rollouts import ROLLOUT_RULES, DynamicSampling


REPOSITORY = Path(__file__).parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
README, CONTRIBUTING = ((REPOSITORY / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
FEATURES, COMMANDS = ((REPOSITORY / "docs" / name).read_text() for name in ("features.md", "commands.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_there_are_pages():
    names = {page.relative_to(REPOSITORY).as_posix() for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/metrics.md", "docs/methods/pi.md"} <= names


# Python


def unresolved_names(code: str, known: set[str]) -> set[str]:
    """Names that a piece of code reads and that neither it nor anyone else defines."""
    tree = ast.parse(code)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    stored = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    return {node.id for node in names} - stored - imported - known - set(dir(builtins))


def run_imports(tree: ast.Module) -> dict:
    namespace = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], type_ignores=[]), "README", "exec"), namespace)
    return namespace


def call_of(tree: ast.Module, name: str) -> ast.Call:
    (call,) = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", None) == name)
    return call


def test_python_of_the_readme_runs_up_to_the_model(tmp_path):
    (code,) = blocks(README, "python")
    assert unresolved_names(code, known={"dataset"}) == set()
    tree = ast.parse(code)
    namespace = run_imports(tree)

    call = call_of(tree, "EntropyGRPOConfig")
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    call.keywords = [keyword for keyword in call.keywords if keyword.arg not in settings]
    call.keywords += [ast.keyword(name, ast.Constant(value)) for name, value in settings.items()]
    args = eval(compile(ast.fix_missing_locations(ast.Expression(call)), "README", "eval"), namespace)
    assert isinstance(args, EntropyGRPOConfig)
    assert [controller.target for controller in args.control.fresh_controllers()] == [
        Target(0.5, 0.5, is_ratio=True, start_steps=5)
    ]

    call = call_of(tree, "EntropyGRPOTrainer")
    signature = inspect.signature(GRPOTrainer.__init__)
    assert namespace["EntropyGRPOTrainer"] is EntropyGRPOTrainer
    signature.bind(None, *call.args, **{keyword.arg: keyword.value for keyword in call.keywords})


PYTHON = [(page, code) for page in PAGES for code in blocks(page.read_text(), "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=lambda value: getattr(value, "name", ""))
def test_imports_of_the_python_of_a_page_are_there(page, code):
    run_imports(ast.parse(code))


def test_wrong_python_would_be_seen():
    assert unresolved_names("from a import b\nc = b(d)\nprint(c)", known=set()) == {"d"}
    with pytest.raises(ImportError):
        run_imports(ast.parse("from trl_entropy import EntropyGRPOTrainr"))


# Links, recipes, files


def broken_links(page: Path, text: str) -> list[str]:
    """Links to a file that is not there, or to a heading that the file does not have."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / name if name else page
        if not target.exists():
            broken.append(link)
        elif heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}
            if heading not in slugs:
                broken.append(link)
    return broken


@every_page
def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text()) == []


def test_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# One `thing`, and more\n")
    text = "[a](there.md) [b](gone.md) ![c](gone.png) [d](https://x.y/z) [e](there.md#one-thing-and-more)"
    text += " [f](there.md#no)"
    assert broken_links(tmp_path / "page.md", text) == ["gone.md", "gone.png", "there.md#no"]


def missing_recipes(text: str) -> list[str]:
    return [name for name in re.findall(r"\brecipes/[\w.-]+\.yaml", text) if not (REPOSITORY / name).is_file()]


@pytest.mark.parametrize(
    "file", [*PAGES, *sorted(REPOSITORY.glob("recipes/*.yaml")), REPOSITORY / "Makefile"], ids=lambda file: file.name
)
def test_recipes_that_are_named_exist(file):
    assert missing_recipes(file.read_text()) == []


def test_missing_recipe_is_found():
    assert missing_recipes("--config recipes/pi.yaml and recipes/none.yaml") == ["recipes/none.yaml"]


def test_files_that_are_listed_exist():
    listing = CONTRIBUTING.split("## Where things are")[1]
    names = re.findall(r"(?<![\w./-])(\w+\.py|\w+/)(?=\s)", listing)
    assert len(names) > 20
    places = [REPOSITORY, REPOSITORY / "trl_entropy"]
    assert [name for name in names if not any((place / name).exists() for place in places)] == []


def test_targets_of_make_that_the_readme_names_exist():
    targets = re.findall(r"^make (\S+)", "\n".join(blocks(README, "bash")), re.M)
    assert targets
    assert set(targets) <= set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.M))


# Flags


@pytest.fixture(scope="module")
def flags_of() -> dict[str, set[str]]:
    """The flags of every verb of the command line, as its help prints them."""
    found = {}
    for verb in [*cli.VERBS, *(f"data {step}" for step in STEPS)]:
        with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
            cli.main([*verb.split(), "--help"])
        names = re.findall(r"^  (-.*?)(?:  |$)", printed.getvalue(), re.M)  # each flag with its other names
        found[verb] = set(re.findall(r"--(\w+)", " ".join(names)))
    for verb in ("grpo", "etpo"):
        found[verb].add("config")  # read before the parser, which does not print it
    found["study"] = set(re.findall(r"^  --(\w+)", study.parser().format_help(), re.M))
    found["compare"] |= found["grpo"]  # it hands on what it does not know
    return found


def named_flags(line: str) -> list[tuple[str, str]]:
    """The flags in a line, with the verb before them; those of other programs are left out."""
    found = []
    for part in re.split(r"[|;&]|\s#\s", line):
        program = re.search(r"\b(accelerate|axolotl|pip|pytest|git|torchrun|vllm-serve)\b", part)
        verb = re.search(r"(?:(?:trl-entropy|-m trl_entropy) |-m (?=study))(data [\w-]+|[\w-]+)", part)
        start = verb.end() if verb else len(part) if program else 0
        flags = re.findall(r"(?<![\w-])--(\w+)", part[start:])
        found += [(verb[1] if verb else "grpo", flag) for flag in flags]
    return found


def unknown_flags(text: str, flags_of: dict[str, set[str]]) -> list[tuple[str, str]]:
    lines = [line for line in text.replace("\\\n", " ").splitlines() if "benchmarks/" not in line]
    return [(verb, flag) for line in lines for verb, flag in named_flags(line) if flag not in flags_of[verb]]


def test_flags_of_every_verb_are_read(flags_of):
    assert {"entropy_control", "learning_rate", "system_prompt", "lora_r"} <= flags_of["grpo"]
    assert {"jobs", "output_dir", "entropy_control"} <= flags_of["compare"]
    assert {"num_terms", "seed"} <= flags_of["make-chain-sum"]
    assert {"dataset", "output", "against"} <= flags_of["data decontaminate"]
    assert flags_of["ls"] == flags_of["fetch-smollm2"] == {"help"}


@every_page
def test_flags_that_are_named_exist(page, flags_of):
    assert unknown_flags(page.read_text(), flags_of) == []


def test_unknown_flag_is_found(flags_of):
    text = (
        "accelerate launch --num_processes 8 -m trl_entropy grpo --config a --entropy_contrl x  # --more\n"
        "trl-entropy compare a b --jobs 2 \\\n  --no_flag\n"
        "trl-entropy ls --jobs 2\n"
        "trl-entropy data deduplicate --threshold 1 --against a\n"
        "pip install --quiet x\n"
        "- `--entropy_target 0.2` and `--target 0.2`\n"
    )
    assert unknown_flags(text, flags_of) == [
        ("grpo", "entropy_contrl"),
        ("grpo", "more"),
        ("compare", "no_flag"),
        ("ls", "jobs"),
        ("data deduplicate", "against"),
        ("grpo", "target"),
    ]


def unknown_in_table(text: str, flags: set[str], values: set[str]) -> list[str]:
    """What stands in backticks in the column `flag` of the table and is neither a flag nor a value of one."""
    rows = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]][:2] == ["", "flag"]
    wrong = []
    for _, cell, _ in rows[2:]:
        for named in re.findall(r"`([^`]+)`", cell):
            flag, _, value = named.partition(" ")
            right = flag in flags and value in values if value else flag in flags | values
            wrong += [] if right else [named]
    return wrong


def test_flags_in_the_tables_of_features_exist(flags_of):
    values = {*presets(), "math_verify_reward"}
    for text in (README.split("## What was measured")[0], FEATURES):
        assert unknown_in_table(text, flags_of["grpo"], values) == []
    table = "||flag|method|\n|-|-|-|\n|a|`entropy_control stage` or `epoch`, `entropy_contrl`|`x`|\n|b|`seed r`||"
    assert unknown_in_table(table, flags_of["grpo"], values) == ["entropy_contrl", "seed r"]


def test_verbs_that_are_named_exist():
    verbs = re.findall(r"(?:trl-entropy|-m trl_entropy) ([a-z][\w-]*)", "\n".join(blocks(COMMANDS, "bash")))
    assert set(verbs) == set(cli.VERBS)


def test_error_that_the_readme_shows_is_the_real_one():
    (shown,) = re.findall(r"^    trl-entropy grpo: error: (.*) \.\.\.$", README, re.M)
    with pytest.raises(ValueError, match="unknown entropy_control") as caught:
        prepare(["--output_dir", "out", "--report_to", "none", "--entropy_control", "entropyguided"])
    assert str(caught.value).startswith(shown)


# Metrics


def pattern(name: str) -> str:
    """A name of the docs as a pattern of `fnmatch`: `<name>` stands for anything."""
    return re.sub(r"<[^>]*>", "*", name)


def table_keys() -> list[str]:
    keys = re.findall(r"^\| `([^`]+)` \|", (REPOSITORY / "docs" / "metrics.md").read_text(), re.M)
    assert len(keys) > 5
    return keys


def logged_keys(trainer) -> set[str]:
    return set().union(*trainer.state.log_history)


def unlogged(names: list[str], logged: set[str]) -> list[str]:
    return [name for name in names if not any(fnmatchcase(key, pattern(name)) for key in logged)]


def undocumented(logged: set[str], names: list[str]) -> set[str]:
    return {key for key in logged if not any(fnmatchcase(key, pattern(name)) for name in names)}


ROLLOUT = {
    "curriculum": {"column": "hard"},
    "dynamic_sampling": {"max_rounds": 1},
    "offline_injection": {"column": "stored"},
    "perplexity_window": {"share": 0.5},
    "prompt_temperature": {},
}


class KeepsSolved(DynamicSampling):
    """With the groups for which pseudo_negative is."""

    def keep(self, rewards):
        return super().keep(rewards) | (rewards > 0.5).all(1)


def elsewhere(prompts, trainer) -> dict:
    """Completions and log-probs of an engine that is not the policy."""
    ids = trainer.processing_class(list(prompts))["input_ids"]
    completions = [[2 + place % 4, 3, 1] for place in range(len(ids))]
    return {"prompt_ids": ids, "completion_ids": completions, "logprobs": [[-1.0, -2.0, -3.0] for _ in ids]}


@pytest.fixture
def everything(model_dir, tmp_path, monkeypatch) -> set[str]:
    """All that can be logged: by a run of all rules, and one for each bonus that bears no weight beside it."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # of rollout_func
    rollouts = {**ROLLOUT, f"{__name__}.KeepsSolved": ROLLOUT["dynamic_sampling"]}
    del rollouts["dynamic_sampling"]
    rules = {section: {name: ACTING[name] for name in table} for section, table in SECTIONS.items()}
    flags = rules["token_weights"].pop("sign")
    alone = [name for name, rule in SECTIONS["advantage_bonuses"].items() if rule.replaces_advantage]
    alone = {name: rules["advantage_bonuses"].pop(name) for name in alone}
    law = {"law": "bang_bang", "knob": "positive_advantage_coef", "target_ratio": 0.9, "start_steps": 1}
    signal = "entropy/token_weights.high_entropy"
    settings = {
        "rollout_rules": rollouts,
        "reward_funcs": [even_length, MathVerifyReward(answer_from=("boxed", "last_maths"))],
        "entropy_measures": "full",
        "temperature": 0.3,  # so that some tokens are likely
        "beta": 0.1,  # with a reference policy
        "num_iterations": 2,  # with an old one
        "epsilon": 1.0,  # for the rules that clip instead of TRL
        "epsilon_high": 19.0,
        "controllers": {"mine": {**law, "step": 0.1, "initial": 1.0, "high": 2.0, "signal": signal}},
        **{**rules, "negative_advantage_coef": flags["negative_advantage_coef"]},
    }
    logged, sampled = set(), {"max_steps": 1, "rollout_func": elsewhere, "entropy_measures": "full"}
    for run in (settings, sampled, *({"max_steps": 1, "advantage_bonuses": {name: alone[name]}} for name in alone)):
        trainer = build_trainer(model_dir, sums_with_columns(), tmp_path, **run)
        trainer.train()
        logged |= logged_keys(trainer)
    return logged


def test_metrics_of_the_docs_are_logged_and_all_that_is_logged_is_there(run, everything):
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    logged = everything
    in_prose = [name for name in re.findall(r"`([\w/<>*]+)`", text) if "/" in name]
    assert unlogged([*table_keys(), *in_prose], logged) == []
    own = logged - logged_keys(run(plain=True, beta=0.1, entropy_coef=0.1))  # with TRL's metrics of its bonus
    assert len(own) > 10
    assert undocumented(own, table_keys()) == set()


def test_metrics_that_a_page_of_a_method_names_are_logged(everything):
    pages = [page for page in PAGES if page.parent == REPOSITORY / "docs" / "methods"]
    for page in pages:
        (sentence,) = re.findall(r"^Logged: (.*?)(?:\n\n|\Z)", page.read_text(), re.M | re.S)
        names = [name for name in re.findall(r"`([^`]+)`", sentence) if "/" in name]
        assert names, page
        assert unlogged(names, everything) == [], page


def test_list_of_methods_has_the_whole_catalogue():
    text = (REPOSITORY / "docs" / "methods.md").read_text()
    origins = {"paper": "the paper's", "code": "the released code's", "style": "in the paper's style"}
    assert ROLLOUT.keys() == ROLLOUT_RULES.keys()
    for rules in (*SECTIONS.values(), ROLLOUT_RULES):
        for name, rule in rules.items():
            line = summary_line(rule).removesuffix(".")
            assert re.search(
                rf"^\| \[{name}\]\(methods/{name}\.md\) \| {re.escape(line)} \|.*\| {origins[rule.origin]} \|$",
                text,
                re.M,
            )
    assert f"[{sum(map(len, SECTIONS.values()))} methods](docs/methods.md)" in README
    assert f"[{sum(map(len, SECTIONS.values()))} methods](methods.md)" in FEATURES
    assert f"[{len(presets())} bundled methods](docs/features.md)" in README
    for name, law in LAWS.items():
        line = re.escape(summary_line(law).removesuffix("."))
        assert re.search(rf"^\| \[{name}\]\(methods/({name}\.md|\w+\.md#{name})\) \| {line} \|", text, re.M)


def test_wrong_metric_is_found():
    logged = {"loss", "knobs/epsilon_low", "controllers/mine/error"}
    assert unlogged(["knobs/<knob>", "controllers/<name>/target"], logged) == ["controllers/<name>/target"]
    assert undocumented(logged - {"loss"}, ["knobs/<knob>"]) == {"controllers/mine/error"}


# The tree


MACHINE_PATH = re.compile(r"(?<![\w.~\-/:})])/(?:work|tmp|root|home)(?![\w-])")


def machine_paths(text: str) -> list[str]:
    return [line for line in text.splitlines() if MACHINE_PATH.search(line)]


def test_no_file_names_a_path_of_a_machine():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    files = [REPOSITORY / name for name in listed.split("\0") if name]
    texts = {file: file.read_bytes().decode("utf-8", errors="ignore") for file in files if file.is_file()}
    assert len(texts) > 50
    assert {file: lines for file, text in texts.items() if (lines := machine_paths(text))} == {}


@pytest.mark.parametrize("folder", ["work", "tmp", "root", "home"])
def test_path_of_a_machine_is_found(folder):
    wrong = [f"cd /{folder}/main", f'open("/{folder}")', f"HOME=/{folder}/x", f"`/{folder}/`", f"(/{folder}/a)"]
    right = [
        f"out/{folder}/x",
        f"https://a.b/{folder}",
        f"./{folder}",
        f"~/{folder}",
        f"/{folder}s",
        f"{{a}}/{folder}",
    ]
    assert machine_paths("\n".join([*wrong, *right])) == wrong


def test_exports_are_named_in_the_readme():
    assert {"EntropyGRPOConfig", "EntropyGRPOTrainer"} <= set(trl_entropy.__all__)
    assert all(name in README for name in ("EntropyGRPOConfig", "EntropyGRPOTrainer"))


def names_of_the_page(page: str, module: str) -> set[str]:
    """The names of a module that the page of public names lists."""
    (row,) = re.findall(rf"^\| names in `{module}` \| (.*) \|$", page, re.M)
    return set(re.findall(r"`(\w+)`", row))


def test_public_names_are_those_of_their_page():
    page = (REPOSITORY / "docs" / "public.md").read_text()
    assert names_of_the_page(page, "trl_entropy") == set(trl_entropy._HOME)
    for module in (rewards, etpo):
        assert names_of_the_page(page, module.__name__) <= set(module.__all__)
