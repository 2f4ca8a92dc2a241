import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from made import alone, full, made
from matplotlib.figure import Figure

from trl_entropy.lab.report.figures import FIGURES
from trl_entropy.lab.report.figures.style import COLORS, DASHES, look_of, plain, thin
from trl_entropy.lab.report.runs import Series
from trl_entropy.lab.report.statistics import Arm
from trl_entropy.lab.report.svg import VARIABLES, to_svg, write_png


OF_A_SINGLE_RUN = ("quadrants", "answers")
TWO_ARMS = [Arm("a", [full("a")]), Arm("b", [full("b", scale=2.0)])]
SEEDS = [Arm("a", [full(f"seed{seed}/a", scale=1 + seed / 10) for seed in range(3)])]
every_figure = pytest.mark.parametrize("name", FIGURES)


def draw(name: str, arms: list[Arm]) -> Figure | None:
    return FIGURES[name].plot(arms)


def words(figure: Figure) -> set[str]:
    """What a reader can read in a figure besides the ticks' numbers."""
    axes = [
        text for panel in figure.axes for text in (panel.get_xlabel(), panel.get_ylabel(), panel.get_title("left"))
    ]
    legends = [text.get_text() for drawn in figure.legends for text in drawn.get_texts()]
    return {figure.get_suptitle(), *axes, *legends} - {""}


@every_figure
def test_figure_of_a_run_of_arms_and_of_seeds(name):
    assert isinstance(draw(name, [Arm("a", [full()])]), Figure)
    for arms in (TWO_ARMS, SEEDS):
        assert (draw(name, arms) is None) == (name in OF_A_SINGLE_RUN)


@every_figure
def test_no_figure_without_data(name):
    assert draw(name, alone(series={"loss": [1.0] * 40})) is None


@every_figure
def test_axes_have_titles_and_units(name):
    figure = draw(name, [Arm("a", [full()])])
    assert figure.get_suptitle()
    assert figure.axes[-1].get_xlabel()
    for panel in figure.axes:
        assert panel.get_ylabel() or panel.get_title("left") or panel.get_yticklabels()[0].get_text()


def test_entropy_of_one_run_is_split_and_has_its_target():
    (axes,) = (figure := draw("entropy", [Arm("a", [full()])])).axes
    names = {"all tokens", "positive advantage", "negative advantage", "target ± 10%"}
    assert words(figure) == {"Entropy of the policy", "optimizer step", "nats per token", *names}
    raw, _, _, _, target = axes.lines
    assert raw.get_ydata()[0] == pytest.approx(0.8)
    assert set(target.get_ydata()) == {0.3}
    assert axes.get_ylim()[0] == 0.0
    bare = draw("entropy", alone(series={"entropy": [1.0] * 3}))
    assert bare.legends == []


def test_band_of_a_target_is_shaded():
    series = {"entropy": [1.0, 0.5], "controllers/hold/target": [0.75, 0.5], "controllers/hold/start": [2.0] * 2}
    for spec, bounds in (({"target": [0.25, 0.75]}, [0.25, 0.75]), ({"target_ratio": [0.25, 0.5]}, [0.5, 1.0])):
        (axes,) = draw("entropy", alone(series=series, settings={"controllers": {"hold": spec}})).axes
        (shade,) = axes.patches
        assert [shade.get_y(), shade.get_y() + shade.get_height()] == bounds
    (axes,) = draw("entropy", alone(series=series, settings={"controllers": {"hold": {"target": 0.5}}})).axes
    assert not axes.patches


def test_seeds_are_drawn_as_mean_and_interval():
    runs = [made(f"seed{seed}/a", series={"reward": [float(seed)] * 20}) for seed in (1, 2, 3)]
    (axes,) = draw("reward", [Arm("a", runs)]).axes
    assert [set(line.get_ydata()) for line in axes.lines] == [{1.0}, {2.0}, {3.0}, {2.0}]
    (interval,) = axes.collections
    assert interval.get_datalim(axes.transData).intervaly == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-4)
    assert axes.get_ylim()[1] < 3.5  # of the lines, whatever the interval is


def test_arms_have_looks_that_differ():
    looks = [look_of(index) for index in range(len(COLORS) * len(DASHES))]
    assert len(set(looks)) == len(looks)
    figure = draw("reward", TWO_ARMS)
    assert {"a", "b"} <= words(figure)
    assert {line.get_color() for line in figure.axes[0].lines} == set(COLORS[:2])


def test_only_knobs_that_are_turned_are_drawn():
    figure = draw("knobs", [Arm("a", [full()])])
    assert [panel.get_title("left") for panel in figure.axes] == ["entropy_coef"]
    assert draw("knobs", alone(series={"knobs/epsilon_high": [0.2] * 9})) is None
    still = {"controllers": {"hold": {"knob": "epsilon_high"}}}
    assert draw("knobs", alone(series={"knobs/epsilon_high": [0.2] * 9}, settings=still)) is not None


def test_no_figure_of_clipping_that_never_happened():
    zeros = {f"clip_ratio/{side}_mean": [0.0] * 9 for side in ("low", "high", "region")}
    assert draw("clipping", alone(series=zeros)) is None


def test_predicted_changes_add_up():
    parts = {"predicted": [-1.0, -2.0], "predicted_positive": [-3.0, -3.0], "predicted_negative": [2.0, 1.0]}
    series = {f"entropy_change/{key}": values for key, values in parts.items()}
    (axes,) = draw("sources", alone(series=series)).axes
    assert [list(line.get_ydata()) for line in axes.lines[:3]] == [[-1.0, -3.0], [-3.0, -6.0], [2.0, 3.0]]
    (axes,) = draw("sources", [Arm(name, [made(name, series=series)]) for name in ("a", "b")]).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([-2 / 3, 1 / 3] * 2)


def test_prediction_has_its_correlation():
    series = {"entropy_change/predicted": [0.0, 1.0, 2.0], "entropy_change/observed": [0.0, 1.0, 0.0]}
    assert "a: correlation 0.00" in words(draw("prediction", alone(series=series)))
    series["entropy_change/observed"] = [1.0, 3.0, 5.0]
    assert "a: correlation 1.00" in words(draw("prediction", alone(series=series)))
    series["entropy_change/observed"] = [1.0, 1.0, 1.0]
    assert "a: correlation –" in words(draw("prediction", alone(series=series)))


def test_deciles_are_means_of_quarters():
    keys = [f"entropy/decile_{number}" for number in range(1, 11)]
    series = {key: [float(place)] * 2 + [9.0] * 4 + [place + 1.0] * 2 for place, key in enumerate(keys)}
    (axes,) = draw("deciles", alone(series=series)).axes
    first, last = axes.lines
    assert list(first.get_ydata()) == list(range(10))
    assert list(last.get_ydata()) == list(range(1, 11))
    del series["entropy/decile_2"]  # completions shorter than ten tokens
    (axes,) = draw("deciles", alone(series=series)).axes
    assert list(axes.lines[0].get_xdata()) == [1, *range(3, 11)]
    # of a single value there is no first quarter, and a mean with a NaN is none
    (axes,) = draw("deciles", alone(series={"entropy/decile_1": [1.0], "entropy/decile_2": [math.nan]})).axes
    assert np.array_equal([line.get_ydata() for line in axes.lines], [[math.nan] * 2, [1.0, math.nan]], equal_nan=True)


def test_evaluation_without_scores_is_its_reward():
    figure = draw("evaluation", alone(series={"eval_reward": [0.1, 0.2], "eval_loss": [1.0, 2.0]}))
    assert [panel.get_title("left") for panel in figure.axes] == ["reward"]


def test_long_lines_are_thinned_and_names_cut():
    long = thin(Series(list(range(2000)), [0.0] * 2000))
    assert (len(long.steps), long.steps[:2]) == (500, [0, 4])
    assert thin(Series([1, 2], [0.0, 1.0])) == ([1, 2], [0.0, 1.0])
    assert plain("a$b$") == r"a\$b\$"
    assert (plain("abcdefghij", 6), plain("abcdef", 6)) == ("ab…hij", "abcdef")


def test_values_that_are_not_finite_are_drawn_around():
    series = {"entropy": [1.0, math.nan, math.inf, 1.0], "knobs/a": [math.nan, 1.0, 2.0, 1.0]}
    for name in ("entropy", "knobs"):
        assert "nan" not in to_svg(draw(name, alone(series=series)), name, "x").lower()
    assert draw("entropy", alone(series={"entropy": [math.nan] * 4})) is not None


def test_nan_is_left_out_of_no_sum():
    series = {f"entropy_change/predicted{sign}": [1.0, math.nan, 1.0] for sign in ("", "_positive", "_negative")}
    (axes,) = draw("sources", alone(series=series)).axes
    assert np.array_equal(axes.lines[0].get_ydata(), [1.0, math.nan, math.nan], equal_nan=True)
    (axes,) = draw("sources", [Arm(name, [made(name, series=series)]) for name in ("a", "b")]).axes
    assert np.isnan([bar.get_width() for bar in axes.patches]).all()


# SVG and PNG


def svg_of(name: str, arms: list[Arm]) -> tuple[str, ElementTree.Element]:
    text = to_svg(draw(name, arms), name, "what it shows")
    return text, ElementTree.fromstring(text)


def test_svg_is_text_that_a_page_can_colour():
    text, root = svg_of("entropy", TWO_ARMS)
    assert root.tag == "svg"
    assert root.attrib.keys() == {"viewBox", "role", "aria-label"}
    written = {element.text for element in root.iter("text")}
    assert {"Entropy of the policy", "nats per token", "a", "b"} <= written
    assert "system-ui" in text
    assert set(re.findall(r"#[0-9a-f]{6}\b", text)) == set()
    assert set(re.findall(r"var\((.*?)\)", text)) <= set(VARIABLES.values())
    assert "http" not in text


def test_references_in_svg_lead_to_ids_of_its_own():
    text, root = svg_of("deciles", [Arm("a", [full()])])
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) > 0
    assert all(name.startswith("deciles-") for name in ids)
    references = re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", text)
    assert references
    assert {one or other for one, other in references} <= set(ids)


def test_names_are_no_markup_and_no_mathematics():
    names = ["<b>&", "_hidden", "a $x$ b", "漢字"]
    _, root = svg_of("reward", [Arm(name, [full(name)]) for name in names])
    assert set(names) <= {element.text for element in root.iter("text")}
    assert root.find(".//b") is None


def test_svg_of_the_same_run_is_the_same():
    assert svg_of("entropy", TWO_ARMS)[0] == svg_of("entropy", TWO_ARMS)[0]


def test_png_is_written(tmp_path):
    write_png(draw("entropy", TWO_ARMS), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
