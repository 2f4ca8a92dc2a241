"""The panel that shows a run in a terminal; it does not know the trainer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import floor, inf, isclose, isfinite, nan

from rich.console import Console, ConsoleOptions, Group
from rich.panel import Panel
from rich.text import Text


BLOCKS = " ▁▂▃▄▅▆▇█"
LINES = "▁┅▔"  # in the lower, middle and upper third of a row
LABEL, VALUE, GAP = 8, 9, 2  # columns
CHART_ROWS = 3
LONGEST_RANGE = 40  # columns
SHORT = 22  # columns of a knob's name in an alarm
# Ours: an error beyond this share of the target is an alarm after this number of optimizer steps, and so is a knob at
# its bound
FAR_SHARE, MANY_STEPS = 0.2, 50


@dataclass
class KnobState:
    """A knob that a controller turns, its range, and its value at every log."""

    name: str
    low: float = -inf
    high: float = inf
    values: list[float | None] = field(default_factory=list)


@dataclass
class LiveState:
    """
    Everything the panel shows.

    Args:
        title (`str`):
            Name of the run.
        max_steps, first_step, step (`int`):
            Optimizer steps: of the whole run, completed when this process began, and completed so far.
        seconds, elapsed (`float`):
            Seconds of the last step, and since this process began.
        target_key (`str`, *optional*):
            The metric with the entropy's target.
        knobs (`list[KnobState]`):
            The knobs that controllers turn.
        steps (`list[int]`):
            The logged optimizer steps; `reward`, `entropy`, `target` and the knobs' values have one entry per step,
            `None` if missing.
        not_finite (`str`):
            The last step with a value that was not finite.
    """

    title: str
    max_steps: int
    first_step: int = 0
    step: int = 0
    seconds: float | None = None
    elapsed: float = 0.0
    target_key: str | None = None
    knobs: list[KnobState] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    reward: list[float | None] = field(default_factory=list)
    entropy: list[float | None] = field(default_factory=list)
    target: list[float | None] = field(default_factory=list)
    not_finite: str = ""

    def update(self, step: int, logs: Mapping) -> None:
        """Take in logged values; logs of an evaluation or of the end of training have no reward and entropy."""
        wrong = [key for key, value in logs.items() if isinstance(value, float) and not isfinite(value)]
        if wrong:
            self.not_finite = f"not finite at step {step}: {', '.join(wrong)}"
        if not {"entropy", "reward"} & logs.keys():
            return
        self.steps.append(step)
        self.reward.append(_value(logs, "reward"))
        self.entropy.append(_value(logs, "entropy"))
        self.target.append(_value(logs, self.target_key))
        for knob in self.knobs:
            knob.values.append(_value(logs, f"knobs/{knob.name}"))


def _value(logs: Mapping, key: str | None) -> float | None:
    value = logs.get(key)
    return float(value) if isinstance(value, int | float) else None


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and isfinite(value)]


def panel(state: LiveState) -> Panel:
    """The panel, as wide as its console."""
    return Panel(_Body(state), title=Text(state.title), title_align="left", border_style="dim")


@dataclass
class _Body:
    state: LiveState

    def __rich_console__(self, console: Console, options: ConsoleOptions):
        width = options.max_width
        yield Group(*(_cut(line, width) for line in _lines(self.state, width)))


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


def _lines(state: LiveState, width: int) -> Iterator[Text]:
    yield _progress(state, width)
    longest = max((len(knob.name) for knob in state.knobs), default=0)
    label = max(LABEL, min(longest, width // 3))
    room = max(1, width - label - VALUE - GAP)
    known = _finite(state.reward) or [0.0]
    (spark,) = chart(state.reward, room, min(known), max(known))
    yield _row("reward".ljust(label), number(_last(state.reward)), Text(spark, "green"))
    for name, value, row in _entropy(state, room):
        yield _row(name.ljust(label), value, row)
    for knob in state.knobs:
        yield _row(tail(knob.name, label).ljust(label), number(_last(knob.values)), Text(_range(knob, room), "blue"))
    for alarm in alarms(state):
        yield Text(f"! {alarm}", "bold red")
    yield Text(_times(state), "dim")


def _row(label: str, value: str, drawn: Text) -> Text:
    return Text.assemble((label, "dim"), value.rjust(VALUE), " " * GAP, drawn)


def _progress(state: LiveState, width: int) -> Text:
    done = min(1.0, state.step / max(1, state.max_steps))
    before, after = f"step {state.step}/{state.max_steps} ", f" {done:.0%}, {duration(remaining(state))} left"
    room = max(0, width - len(before) - len(after))
    full = floor(done * room)
    return Text.assemble(before, ("━" * full, "green"), ("─" * (room - full), "dim"), after)


def _entropy(state: LiveState, width: int) -> Iterator[tuple[str, str, Text]]:
    """The number and how far it is off; then the chart from 0 up, with a line at the target or at the run's start."""
    entropy, known, target = _last(state.entropy), _finite(state.entropy), _last(_finite(state.target))
    label, aim = ("start", known[0] if known else None) if target is None else ("target", target)
    alone = target is None and len(state.entropy) == 1  # the start itself
    off = None if entropy is None or not aim or alone else entropy / aim - 1
    high = max((value for value in _finite((*state.entropy, aim)) if value > 0), default=1.0)
    yield "entropy", number(entropy), Text(f"off by {f'{off:+.0%}' if _finite([off]) else number(off)}")
    rows = [("", "", Text(row, "cyan")) for row in chart(state.entropy, width, 0.0, high, CHART_ROWS)]
    if aim is not None:
        level = aim / high * CHART_ROWS
        row = max(0, min(CHART_ROWS - 1, floor(level)))
        line = LINES[max(0, min(2, floor(3 * (level - row))))]
        at = CHART_ROWS - 1 - row
        rows[at] = (label, number(aim), _with_line(rows[at][2].plain.ljust(width), line))
    yield from rows


def _with_line(row: str, line: str) -> Text:
    """A row of a chart with a line through its empty and full cells."""
    styles = {" ": (line, "red"), BLOCKS[-1]: (line, "red on cyan")}
    return Text.assemble(*(styles.get(cell, (cell, "cyan")) for cell in row))


def chart(values: list[float | None], width: int, low: float, high: float, rows: int = 1) -> list[str]:
    """
    Draw values as columns of blocks, the highest row first; if there are more values than columns, they are averaged.

    A value that is not finite is drawn as `!`, and so is a mean that includes one. A missing value is drawn as `-`.
    """
    columns = values
    if len(values) > width:
        cuts = [len(values) * i // width for i in range(width + 1)]
        columns = [_mean(values[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)]
    levels = [None if value is None else (value - low) / (high - low or 1.0) * rows for value in columns]
    return ["".join(_block(level, row) for level in levels) for row in reversed(range(rows))]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _block(level: float | None, row: int) -> str:
    if level is None or not isfinite(level):
        return " " if row else "-" if level is None else "!"
    eighths = min(8, max(0, round(8 * (level - row))))
    return BLOCKS[max(1, eighths) if row == 0 else eighths]  # the lowest row is never empty


def _range(knob: KnobState, width: int) -> str:
    """The value between its bounds; if a bound is infinite, the direction of the last change."""
    value = _last(knob.values)
    if not (isfinite(knob.low) and isfinite(knob.high)):
        last = _finite(knob.values[-2:])
        return "-" if len(last) < 2 else "↑" if last[1] > last[0] else "↓" if last[1] < last[0] else "→"
    low, high = f"{number(knob.low)} ", f" {number(knob.high)}"
    if width - len(low) - len(high) < 7:
        low = high = ""
    places = ["─"] * max(1, min(LONGEST_RANGE, width - len(low) - len(high) - 2))
    if value is not None and isfinite(value):
        share = (value - knob.low) / (knob.high - knob.low)
        places[round(min(1.0, max(0.0, share)) * (len(places) - 1))] = "●"
    return f"{low}├{''.join(places)}┤{high}"


def alarms(state: LiveState) -> list[str]:
    """Alarms: values that are not finite, and long-lasting errors and knobs at their bounds."""
    found = [state.not_finite] if state.not_finite else []
    pairs = zip(state.entropy, state.target, strict=True)
    off = [entropy / aim - 1 if aim and entropy is not None else nan for entropy, aim in pairs]
    steps = _lasting(state, [abs(share) > FAR_SHARE for share in off])
    if steps >= MANY_STEPS:
        way = "above" if off[-1] > 0 else "below"
        found.append(f"entropy {abs(off[-1]):.0%} {way} its target, off for {steps} steps")
    for knob in state.knobs:
        for bound, which in ((knob.low, "lower"), (knob.high, "upper")):
            steps = _lasting(
                state, [value is not None and isclose(value, bound, abs_tol=1e-12) for value in knob.values]
            )
            if steps >= MANY_STEPS:
                found.append(f"{tail(knob.name, SHORT)} at its {which} bound for {steps} steps")
    return found


def _lasting(state: LiveState, flags: list[bool]) -> int:
    """Number of optimizer steps for which a flag has been set without a break."""
    if not flags or not flags[-1]:
        return 0
    last_down = max((i for i, flag in enumerate(flags) if not flag), default=None)
    return state.steps[-1] - (state.first_step if last_down is None else state.steps[last_down])


def remaining(state: LiveState) -> float:
    """Seconds until the last step, at the mean speed of this process."""
    done = state.step - state.first_step
    return state.elapsed / done * max(0, state.max_steps - state.step) if done > 0 else nan


def _times(state: LiveState) -> str:
    done = state.step - state.first_step
    mean = state.elapsed / done if done > 0 else None
    return f"last step {number(state.seconds)} s, mean {number(mean)} s, {duration(state.elapsed)} so far"


def _last(values: list[float | None]) -> float | None:
    return values[-1] if values else None


def number(value: float | None) -> str:
    """Three digits, `nan` or `inf`; `-` if there is none."""
    return "-" if value is None else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`m:ss` or `h:mm:ss`."""
    if not isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def tail(name: str, width: int) -> str:
    """The end of a name that is too long."""
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"
