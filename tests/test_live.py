"""The panel in the terminal."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from math import inf, isfinite, nan
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest
from rich.console import Console
from terminal import Terminal, cursor_is_shown, screen
from test_compare import FLAGS
from toy import logged
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from trl_entropy import EntropyCallback, LiveView
from trl_entropy.callbacks.own import with_own
from trl_entropy.callbacks.recorder import Recorder
from trl_entropy.lab.compare import _train_and_score
from trl_entropy.lab.panel import (
    FAR_SHARE,
    MANY_STEPS,
    KnobState,
    LiveState,
    alarms,
    chart,
    duration,
    number,
    panel,
    remaining,
    tail,
)


TESTS = Path(__file__).parent
both = pytest.mark.parametrize("plain", [False, True], ids=["package", "plain"])
TARGET = "controllers/hold/target"
LONG_NAME = "token_weights.confident_sign.alpha"


def filled(steps: int = 0, knobs=(), target_key=TARGET, **logs) -> LiveState:
    """A state after `steps` logs; a value may be a function of the step."""
    state = LiveState("a run", max_steps=100, knobs=[KnobState(*knob) for knob in knobs], target_key=target_key)
    for step in range(1, steps + 1):
        state.update(step, {key: value(step) if callable(value) else value for key, value in logs.items()})
    state.step, state.seconds, state.elapsed = steps, 1.5, 2.0 * steps
    return state


def drawn(state: LiveState, width: int, **options) -> list[str]:
    console = Console(width=width, file=io.StringIO(), **options)
    console.print(panel(state))
    return console.file.getvalue().splitlines()


FULL = filled(
    80,
    knobs=[("entropy_coef", 0.0, 1.0), (LONG_NAME, 0.0, inf), ("epsilon_high", 0.2, 0.5)],
    reward=lambda step: step / 100,
    entropy=lambda step: 1.0 - step / 160,
    **{
        TARGET: 0.25,
        "knobs/entropy_coef": 0.75,
        f"knobs/{LONG_NAME}": lambda step: float(step),
        "knobs/epsilon_high": 0.2,
    },
)


# The panel


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("colors", [None, "truecolor"])
def test_panel_has_the_width_of_the_terminal_and_one_line_for_each_thing(width, colors):
    lines = drawn(FULL, width)
    # border, progress, reward, four of entropy, three knobs, two alarms, times, border
    assert len(lines) == 14
    assert {len(line) for line in lines} == {width}
    assert [line[0] + line[-1] for line in lines] == ["╭╮", *["││"] * 12, "╰╯"]
    if colors:
        plain = drawn(FULL, width, force_terminal=True, color_system=colors)
        assert screen("\n".join(plain).replace("\n", "\r\n"), width) == lines


def test_panel_at_60_columns():
    assert [line[2:-2].rstrip() for line in drawn(FULL, 60)[1:-1]] == [
        "step 80/100 ━━━━━━━━━━━━━━━━━━━━━━━────── 80%, 0:40 left",
        "reward                  0.8  ▁▁▁▁▁▂▂▂▂▃▃▃▄▄▄▅▅▅▅▆▆▆▇▇▇██",
        "entropy                 0.5  off by +100%",
        "                             ██▇▇▆▆▅▅▄▄▃▃▃▂▂▁▁",
        "                             ███████████████████▇▇▆▆▆▅▅▄",
        "target                 0.25  ▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔",
        "entropy_coef           0.75  0 ├───────────────●─────┤ 1",
        "…fident_sign.alpha       80  ↑",
        "epsilon_high            0.2  0.2 ├●────────────────┤ 0.5",
        "! entropy 100% above its target, off for 80 steps",
        "! epsilon_high at its lower bound for 80 steps",
        "last step 1.5 s, mean 2 s, 2:40 so far",
    ]


@pytest.mark.parametrize("width", [20, 30, 60, 80, 120])
@pytest.mark.parametrize(
    "state",
    [
        filled(),
        filled(1, entropy=nan, reward=None, knobs=[("a" * 100, -inf, inf)]),
        filled(3, entropy=inf, reward=-1.23456e-05, knobs=[("b", -1.2345e-05, 1.2345e-05)]),
        filled(3, entropy=-1e-9, reward=0.0),
        filled(200, entropy=0.0, reward=0.0, **{TARGET: 0.5}),
        LiveState("long name " * 20, max_steps=10**9, step=10**8, elapsed=1e7),
    ],
    ids=["empty", "missing", "infinite", "rounded", "collapsed", "long"],
)
def test_nothing_overflows(state, width):
    lines = drawn(state, width)
    assert {len(line) for line in lines} == {width}
    assert len(lines) == 9 + len(state.knobs) + len(alarms(state))


def test_missing_values_are_dashes():
    state = filled(2, entropy=None, reward=None, knobs=[("entropy_coef", 0.0, 1.0), ("epsilon_high", 0.0, inf)])
    texts = [line[2:-2].split() for line in drawn(state, 60)]
    assert texts[2:9] == [
        ["reward", "-", "--"],
        ["entropy", "-", "off", "by", "-"],
        [],
        [],
        ["--"],
        ["entropy_coef", "-", "0", f"├{'─' * 27}┤", "1"],
        ["epsilon_high", "-", "-"],
    ]


def test_nan_is_shown_as_one():
    state = filled(2, entropy=lambda step: [0.5, nan][step - 1], reward=nan)
    texts = [line[2:-2].split() for line in drawn(state, 60)]
    assert texts[2] == ["reward", "nan", "!!"]
    assert texts[3] == ["entropy", "nan", "off", "by", "nan"]
    assert texts[4][:2] == ["start", "0.5"]
    assert texts[6] == ["█!"]
    assert texts[7] == ["!", "not", "finite", "at", "step", "2:", "entropy,", "reward"]


def test_start_alone_has_no_change():
    (off,) = (line[2:-2].split() for line in drawn(filled(1, entropy=0.5), 60) if "off by" in line)
    assert off == ["entropy", "0.5", "off", "by", "-"]


def test_without_a_target_the_start_stands_in_its_place():
    lines = [line[2:-2].split() for line in drawn(filled(4, entropy=lambda step: 1 - step / 8, target_key=None), 60)]
    assert lines[3] == ["entropy", "0.5", "off", "by", "-43%"]
    assert lines[4][:2] == ["start", "0.875"]


@pytest.mark.parametrize(
    ("target", "line", "row"), [(0.35, "▁", 1), (0.45, "┅", 1), (0.55, "▔", 1), (0.05, "▁", 2), (0.9, "▔", 0)]
)
def test_line_of_the_target_stands_at_its_height(target, line, row):
    # three rows up to 0.9: the middle one from 0.3 to 0.6, in thirds of 0.1
    state = filled(3, entropy=lambda step: {1: 0.9, 2: 0.375, 3: 0.1}[step], **{TARGET: target})
    rows = ["█", "█▂", "██▃"]
    rows[row] = rows[row].ljust(37).replace(" ", line).replace("█", line)
    assert [line[21:-2].rstrip() for line in drawn(state, 60)[4:7]] == rows


@pytest.mark.parametrize(
    ("values", "shown"),
    [([1.0, 2.0], "↑"), ([2.0, 1.0], "↓"), ([1.0, 1.0], "→"), ([1.0], "-"), ([None, 1.0], "-"), ([1.0, nan], "-")],
)
def test_knob_without_bounds_has_an_arrow(values, shown):
    state = LiveState("", 10, knobs=[KnobState("epsilon_high", 0.0, inf, values)])
    assert drawn(state, 60)[7][2:-2].split()[-1] == shown


def test_chart_is_blocks_from_low_to_high():
    assert chart([0.0, 0.25, 0.5, 1.0, 2.0], 9, 0.0, 1.0) == ["▁▂▄██"]
    assert chart([0.0, 0.25, 0.5, 1.0], 9, 0.0, 1.0, rows=2) == ["   █", "▁▄██"]
    assert chart([None, nan, inf, 1.0], 9, 0.0, 1.0, rows=2) == ["   █", "-!!█"]
    assert chart([3.0, 3.0], 9, 3.0, 3.0) == ["▁▁"]
    assert chart([], 9, 0.0, 1.0) == [""]


def test_chart_averages_what_is_wider_than_it():
    # two columns for (0, 1, none) and (1, 1, 0.25): 0.5 and 0.75
    assert chart([0.0, 1.0, None, 1.0, 1.0, 0.25], 2, 0.0, 1.0) == ["▄▆"]
    assert chart([0.0, 1.0, nan, 1.0, 1.0, 0.25], 2, 0.0, 1.0) == ["!▆"]
    assert chart([None, None, 1.0, 1.0], 2, 0.0, 1.0) == ["-█"]


def test_numbers_and_times():
    values = (0.123456, -1.23456e-05, 12345.6, 1, nan, inf, None)
    assert [number(value) for value in values] == ["0.123", "-1.23e-05", "1.23e+04", "1", "nan", "inf", "-"]
    assert [duration(value) for value in (0, 59.6, 3599, 3661, nan)] == ["0:00", "1:00", "59:59", "1:01:01", "-"]
    assert [tail(LONG_NAME, width) for width in (34, 12)] == [LONG_NAME, "…_sign.alpha"]


def test_time_left_is_counted_from_the_step_that_was_resumed():
    state = LiveState("", max_steps=100, first_step=40, step=50, elapsed=20.0)
    assert remaining(state) == 100.0
    assert not isfinite(remaining(LiveState("", max_steps=100, first_step=40, step=40)))


# Alarms


@pytest.mark.parametrize(("value", "message"), [(nan, "loss"), (-inf, "loss"), (1.0, None), (None, None)])
def test_value_that_is_not_finite_stays_an_alarm(value, message):
    state = filled(1, entropy=0.5, loss=value, lr=0.1)
    state.update(2, {"entropy": 0.5, "loss": 1.0})
    assert alarms(state) == ([f"not finite at step 1: {message}"] if message else [])


@pytest.mark.parametrize(
    ("entropy", "message"),
    [
        (0.5 * (1 + FAR_SHARE) + 0.01, "entropy 22% above its target, off for 50 steps"),
        (0.5 * (1 - FAR_SHARE) - 0.01, "entropy 22% below its target, off for 50 steps"),
        (0.5 * (1 + FAR_SHARE) - 0.01, None),
        (0.5 * (1 - FAR_SHARE) + 0.01, None),
        (nan, None),
    ],
)
def test_entropy_far_from_its_target_for_long_is_an_alarm(entropy, message):
    state = filled(MANY_STEPS, entropy=entropy, **{TARGET: 0.5})
    found = [alarm for alarm in alarms(state) if "finite" not in alarm]
    assert found == ([message] if message else [])
    assert [
        alarm for alarm in alarms(filled(MANY_STEPS - 1, entropy=entropy, **{TARGET: 0.5})) if "off" in alarm
    ] == []


def test_alarm_counts_from_the_last_good_log():
    state = filled(100, entropy=lambda step: 0.5 if step == 40 else 2.0, **{TARGET: 0.5})
    assert alarms(state) == ["entropy 300% above its target, off for 60 steps"]
    state = LiveState("", max_steps=100, first_step=10, target_key=TARGET)
    for step in (20, 40, 60):  # logged every 20 steps, in a run resumed at 10
        state.update(step, {"entropy": 2.0, TARGET: 0.5})
    assert alarms(state) == ["entropy 300% above its target, off for 50 steps"]
    state.update(80, {"entropy": 0.5, TARGET: 0.5})
    assert alarms(state) == []


@pytest.mark.parametrize(("value", "which"), [(0.0, "lower"), (1.0, "upper"), (0.5, None), (1e-6, None), (nan, None)])
def test_knob_at_its_bound_for_long_is_an_alarm(value, which):
    knob = [("entropy_coef", 0.0, 1.0)]
    state = filled(MANY_STEPS, knobs=knob, entropy=0.5, **{"knobs/entropy_coef": value})
    found = [alarm for alarm in alarms(state) if "finite" not in alarm]
    assert found == ([f"entropy_coef at its {which} bound for 50 steps"] if which else [])
    assert not any(
        "bound" in one for one in alarms(filled(MANY_STEPS - 1, knob, entropy=0.5, **{"knobs/entropy_coef": value}))
    )


def test_logs_of_an_evaluation_are_no_step():
    state = filled(1, entropy=0.5, reward=1.0)
    state.update(1, {"eval_reward": 0.5, "eval_entropy": 0.25})
    state.update(1, {"train_runtime": 3.0})
    assert (state.steps, state.reward, state.entropy) == ([1], [1.0], [0.5])


# In a run


class Shown(NamedTuple):
    """What was written to a terminal, the lines that are on it in the end, and the panels among them."""

    written: str
    lines: list[str]
    panels: list[list[str]]


def shown(written: str) -> Shown:
    lines = screen(written, 80)
    tops = [i for i, line in enumerate(lines) if line.startswith("╭─ ") and "─ Step " not in line]
    ends = [next(i for i in range(top, len(lines)) if lines[i].startswith("╰")) for top in tops]
    inside = [[line[2:-2].rstrip() for line in lines[top + 1 : end]] for top, end in zip(tops, ends, strict=True)]
    return Shown(written, lines, inside)


@pytest.fixture
def on_terminal(monkeypatch):
    """Call a function with stdout and stderr on a terminal of 80 columns: `on_terminal(trainer.train)`."""

    def watch(function, **environment) -> Shown:
        terminal = Terminal(width=80)
        with open(os.dup(terminal.device), "w", encoding="utf-8", buffering=1) as device, monkeypatch.context() as own:
            for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
                own.delenv(name, raising=False)
            for name, value in {"TERM": "xterm-256color", **environment}.items():
                own.setenv(name, value)
            own.setattr(sys, "stdout", device)
            own.setattr(sys, "stderr", device)
            function()
            assert sys.stdout is sys.stderr is device
        return shown(terminal.close())

    return watch


def viewed(build, plain: bool, **arguments):
    """A trainer that shows its run."""
    trainer = build(plain=plain, **arguments, **({} if plain else {"live_view": True}))
    return LiveView().attach(trainer).trainer if plain else trainer


class Talk(TrainerCallback):
    """Says something in every step, in three ways."""

    def on_step_end(self, args, state, control, **kwargs):
        print(f"printed {state.global_step}")
        print(f"to stderr {state.global_step}", file=sys.stderr)
        logging.getLogger("somewhere").warning("logged %d", state.global_step)


@both
@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_panel_stands_in_for_the_progress_bar(build, on_terminal, tmp_path, plain, disable_tqdm):
    trainer = viewed(build, plain, disable_tqdm=disable_tqdm)
    seen = on_terminal(trainer.train)
    assert seen.lines[0].startswith(f"╭─ {tmp_path.name} ─")
    (inside,) = seen.panels
    assert inside[0].startswith("step 3/3 ━")
    assert inside[0].endswith("100%, 0:00 left")
    assert inside[1].split()[:2] == ["reward", number(logged(trainer, "reward")[-1])]
    assert inside[2].split()[:2] == ["entropy", number(logged(trainer, "entropy")[-1])]
    assert len(inside) == 7
    assert len([line for line in seen.lines if line]) == 9  # nothing but the panel
    assert "train_runtime" not in seen.written
    assert cursor_is_shown(seen.written)


@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_without_it_there_is_a_progress_bar_or_there_are_lines(build, on_terminal, disable_tqdm):
    seen = on_terminal(build(disable_tqdm=disable_tqdm).train)
    assert "train_runtime" in seen.written
    assert ("it/s" in seen.written) is not disable_tqdm
    assert seen.panels == []


def test_callback_that_is_attached_late_comes_before_the_bar_has_begun(build, on_terminal):
    class Count(TrainerCallback):
        begun = ended = 0

        def on_train_begin(self, *args, **kwargs):
            self.begun += 1

        def on_train_end(self, *args, **kwargs):
            self.ended += 1

    trainer = build(plain=True, disable_tqdm=False)
    trainer.add_callback(count := Count())
    LiveView().attach(trainer)
    seen = on_terminal(trainer.train)
    assert (count.begun, count.ended) == (1, 1)  # nobody in the list is passed over
    assert len(seen.panels) == 1
    assert "train_runtime" not in seen.written


def test_knobs_of_controllers_and_their_target_are_shown(build, on_terminal):
    of_reward = {"signal": "reward", "raises_signal": True, "target": 9.0}
    controllers = {
        "clip": {"law": "bang_bang", "knob": "epsilon_high", "step": 0.1, **of_reward},
        "hold": {"law": "pi", "knob": "entropy_coef", "target": 2.0, "kp": 0.5, "ki": 0.1, "low": -1.0, "high": 1.0},
    }
    trainer = build(live_view=True, controllers=controllers, num_iterations=2, max_steps=4)
    (inside,) = on_terminal(trainer.train).panels
    last = {name: number(logged(trainer, f"knobs/{name}")[-1]) for name in ("epsilon_high", "entropy_coef")}
    assert ["target", "2"] in [line.split()[:2] for line in inside[3:6]]
    assert inside[6].split() == ["epsilon_high", last["epsilon_high"], "↑"]
    assert inside[7].split()[:3] == ["entropy_coef", last["entropy_coef"], "-1"]
    assert inside[7].count("●") == 1


def test_knob_of_a_callback_on_a_plain_trainer_is_shown(build, on_terminal):
    trainer = viewed(build, plain=True)
    EntropyCallback("pi", "entropy_coef", target=2.0, kp=0.5, ki=0.1).attach(trainer)
    (inside,) = on_terminal(trainer.train).panels
    assert ["target", "2"] in [line.split()[:2] for line in inside[3:6]]
    assert inside[6].split()[0] == "entropy_coef"


@both
def test_what_is_said_meanwhile_stands_whole_above_the_panel(build, on_terminal, plain):
    trainer = viewed(build, plain)
    trainer.add_callback(Talk())

    def train():
        handler = logging.StreamHandler(sys.stderr)  # keeps the stream that it was made with
        logging.getLogger("somewhere").addHandler(handler)
        try:
            trainer.train()
            assert handler.stream is sys.stderr
        finally:
            logging.getLogger("somewhere").removeHandler(handler)

    seen = on_terminal(train)
    said = [f"{what} {step}" for step in (1, 2, 3) for what in ("printed", "to stderr", "logged")]
    assert seen.lines[:9] == said
    assert seen.lines[9].startswith("╭─ ")
    assert len(seen.panels) == 1


@both
def test_completions_of_trl_stand_whole_above_the_panel(build, on_terminal, plain):
    trainer = viewed(build, plain, log_completions=True, num_completions_to_print=2)
    seen = on_terminal(trainer.train)
    tables = [i for i, line in enumerate(seen.lines) if "─ Step " in line]
    assert [seen.lines[i].split()[2] for i in tables] == ["1", "2", "3", "3"]
    for top in tables:
        end = next(i for i in range(top, len(seen.lines)) if seen.lines[i].startswith("╰"))
        assert len({len(line) for line in seen.lines[top : end + 1]}) == 1
        assert any("Completion" in line for line in seen.lines[top:end])
    assert len(seen.panels) == 1
    assert seen.lines[-2].startswith("╰")


def test_evaluation_leaves_the_panel(build, on_terminal, dataset):
    evaluation = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": dataset.select(range(2))}
    seen = on_terminal(build(live_view=True, disable_tqdm=False, **evaluation).train)
    assert len(seen.panels) == 1
    assert len([line for line in seen.lines if line]) == 9


def test_second_run_is_shown_as_well(build, on_terminal):
    trainer = build(live_view=True)

    def train():
        trainer.train()
        trainer.train()

    assert len(on_terminal(train).panels) == 2


# Where it does nothing


@both
def test_it_does_nothing_where_there_is_no_terminal(build, capsys, monkeypatch, plain):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take a file for a terminal
    trainer = viewed(build, plain, disable_tqdm=False)
    trainer.train()
    printed = capsys.readouterr()
    assert "╭" not in printed.out + printed.err
    assert "train_runtime" in printed.out
    assert any(type(one) is ProgressCallback for one in trainer.callback_handler.callbacks)


def test_it_does_nothing_on_a_terminal_that_cannot_draw(build, on_terminal):
    trainer = build(live_view=True)
    assert on_terminal(trainer.train, TERM="dumb").panels == []
    assert any(type(one) is PrinterCallback for one in trainer.callback_handler.callbacks)


def test_other_processes_show_nothing(build, on_terminal):
    class Elsewhere(LiveView):
        def on_train_begin(self, args, state, control, **kwargs):
            state.is_world_process_zero = False
            super().on_train_begin(args, state, control, **kwargs)
            state.is_world_process_zero = True

    assert on_terminal(Elsewhere().attach(build(plain=True)).trainer.train).panels == []


def test_arms_that_share_a_terminal_show_nothing(on_terminal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    problems = [json.dumps({"prompt": f"{n}+1=", "solution": str(n + 1)}) for n in range(8)]
    Path("problems.jsonl").write_text("\n".join(problems))
    flags = [*FLAGS, "--model_name_or_path", "embedded", "--dataset_name", "problems.jsonl", "--output_dir", "out"]
    flags += ["--live_view", "true"]
    assert on_terminal(lambda: _train_and_score("arm", flags, SimpleQueue())).panels == []


def test_output_that_goes_to_a_file_stays_there(build, on_terminal, tmp_path):
    trainer = build(live_view=True, callbacks=[Talk()])

    def train():
        with open(tmp_path / "out.txt", "w") as file, contextlib.redirect_stdout(file):
            trainer.train()

    seen = on_terminal(train)
    assert (tmp_path / "out.txt").read_text().splitlines() == [f"printed {step}" for step in (1, 2, 3)]
    assert not any("printed" in line for line in seen.lines)
    assert len(seen.panels) == 1


def test_flag_is_off_by_default(build):
    assert not any(isinstance(one, LiveView) for one in build().callback_handler.callbacks)


def test_own_callbacks_are_added_once():
    def kinds(callbacks, live_view):
        return [type(one) for one in with_own(callbacks, live_view)]

    assert kinds(None, False) == [Recorder]
    assert kinds([Talk()], True) == [Talk, Recorder, LiveView]
    assert kinds([LiveView(), Recorder()], True) == [LiveView, Recorder]
    assert kinds([LiveView], True) == [LiveView, Recorder]  # transformers takes classes too


def test_view_without_a_trainer_is_refused(run):
    with pytest.raises(ValueError, match=r"^the LiveView is not attached to a trainer: call attach\(trainer\) before"):
        run(plain=True, callbacks=[LiveView()])


# Runs that fail


@pytest.mark.parametrize(
    ("kind", "how", "statuses"),
    [
        pytest.param("package", "crash", {1}, marks=pytest.mark.slow),
        # 1 if Python compiles something while it ends
        pytest.param("plain", "interrupt", {-2, 1}, marks=pytest.mark.slow),
        pytest.param("plain", "crash", {1}, marks=pytest.mark.slow),
        pytest.param("plain", "exit", {3}, marks=pytest.mark.slow),
        pytest.param("plain", "kill", {-9}, marks=pytest.mark.slow),
    ],
)
def test_run_that_fails_gives_the_terminal_back(model_dir, tmp_path, kind, how, statuses):
    terminal = Terminal(width=80)
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
    command = [sys.executable, str(TESTS / "live_run.py"), model_dir, str(tmp_path), kind, how]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.device)
    done = subprocess.run(command, env=environment, timeout=150, **streams)
    written = terminal.close()
    assert done.returncode in statuses, written[-3000:]
    assert cursor_is_shown(written)
    seen = shown(written)
    (inside,) = seen.panels
    assert inside[0].startswith("step 2/3")
    assert "somewhere: a last word" in seen.lines
    if how == "crash":
        assert "RuntimeError: broken in the middle" in seen.lines
    if how != "kill":  # the prompt of the shell stands on a line of its own
        assert seen.lines[-1] == ""


def test_hidden_cursor_would_be_seen():
    assert not cursor_is_shown("\x1b[?25h a \x1b[?25l b")
    assert cursor_is_shown("\x1b[?25l b \x1b[?25h")
    assert cursor_is_shown("nothing")


def test_screen_is_what_a_terminal_shows():
    assert screen("one\r\ntwo\r\x1b[2K\x1b[1A\x1b[2Kthree\r\n\x1b[1mfour", 9) == ["three", "four"]
    assert screen("abc\rx", 9) == ["xbc"]
    assert screen("0123456789\r\nx", 9) == ["012345678", "9", "x"]
    assert screen("012345678\r\nx", 9) == ["012345678", "x"]
