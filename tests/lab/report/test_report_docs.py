import re
from pathlib import Path

import pytest

from trl_entropy.control import advice
from trl_entropy.lab.report.control import BAND
from trl_entropy.lab.report.findings import controllers, entropy, learning
from trl_entropy.lab.report.findings.finding import MIN_LOGS
from trl_entropy.lab.report.statistics import WINDOW


PAGE = Path(__file__).parents[3] / "docs" / "report.md"
# What the page says, and the constants that stand behind the numbers
SENTENCES = [
    ("fewer than {} logged steps nothing is concluded ({} for the reward)", (MIN_LOGS, 2 * MIN_LOGS)),
    ("of the first and of the last {} logged steps; of fewer than {}, those", (WINDOW, 2 * WINDOW)),
    (
        "{:.0%} or more of the groups have equal rewards, over the run and at its end, and the reward moved by {:g}",
        (learning.NEARLY_ALL, learning.SMALL_REWARD),
    ),
    ("from {} optimizer steps on", (MIN_LOGS,)),
    ("stays within {:.0%} of the target to the end, for {} logged steps or more", (BAND, WINDOW)),
    ("below {:.0%} of its start, or above {:.0%};", (entropy.COLLAPSE, entropy.EXPLOSION)),
    ("lowest or highest value of the run for more than {:.0%} of the last half", (controllers.AT_LIMIT,)),
    ("have {:.0%} of it or more, and it is larger than {:g} standard errors", (entropy.ONE_SIDED, entropy.ERRORS)),
    (
        "lower entropy by more than {:g} standard errors and have {:.0%} of the fall",
        (advice.ERRORS, advice.LEAST_SHARE),
    ),
    ("correlation of {:g} or more, or below {:g}", (entropy.EXPLAINS, entropy.FAILS)),
    ("{:g} standard errors and {:g} |", (learning.ERRORS, learning.SMALL_REWARD)),
    (
        "{:.0%} or more of the groups have equal rewards at the end, {:g} points",
        (learning.NO_SIGNAL, 100 * learning.GROWTH),
    ),
    ("{:.0%} or more of the clipped tokens at one end, and at least {:.1%}", (learning.ONE_SIDED, learning.CLIPPED)),
    ("by more than {:g}", (learning.WORSE,)),
]


@pytest.mark.parametrize(("sentence", "numbers"), SENTENCES, ids=lambda given: given if isinstance(given, str) else "")
def test_thresholds_of_the_page_are_those_of_the_code(sentence, numbers):
    assert sentence.format(*numbers) in re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))
