"""A saved state that is damaged gives one line that says where and what."""

import re

import pytest

from trl_entropy.checks import check_saved


FORM = {"value": float, "count": int, "names": [str], "memory": {str: float}}
WHOLE = {"value": 1, "count": 2, "names": ["a", "b"], "memory": {"sum": 0.5}, "more": None}


def test_state_of_the_form_passes():
    check_saved("x.json", WHOLE, FORM)
    check_saved("x.json", {**WHOLE, "value": 0.5, "names": [], "memory": {}}, FORM)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (None, "it is NoneType, not dict"),
        ([], "it is list, not dict"),
        ({}, "it has no value"),
        ({**WHOLE, "value": "1"}, "value is str, not float"),
        ({**WHOLE, "value": True}, "value is bool, not float"),
        ({**WHOLE, "count": 1.5}, "count is float, not int"),
        ({**WHOLE, "names": "ab"}, "names is str, not list"),
        ({**WHOLE, "names": ["a", 1]}, "an entry of names is int, not str"),
        ({**WHOLE, "memory": {"sum": None}}, "memory.sum is NoneType, not float"),
    ],
)
def test_state_of_another_form_is_refused(state, why):
    with pytest.raises(ValueError, match=re.escape(f"x.json is damaged ({why}): resume from another checkpoint")):
        check_saved("x.json", state, FORM)
