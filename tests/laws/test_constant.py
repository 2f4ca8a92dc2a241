import math

import pytest
from toy import parameters, same

from trl_entropy.control.laws import Constant, Reading


def test_value_is_the_same_whatever_is_read():
    for progress, error in ((0.0, 0.0), (0.5, 9.0), (1.0, -9.0)):
        assert Constant(0.25)(0.9, {}, Reading(error, progress, epoch=0.0, num_epochs=1)) == (0.25, {})


def test_memory_is_handed_on():
    assert Constant()(0.1, {"x": 7.0}, Reading(5.0, 0.75, 0.0, 1)) == (0.0, {"x": 7.0})


def test_it_is_a_schedule():
    assert not Constant.uses_target


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, True])
def test_value_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="value must be a number, got"):
        Constant(value)


def test_training_is_that_of_the_flag(run, tmp_path):
    law = {"law": "constant", "knob": "entropy_coef", "value": 0.5}
    held = run(output_dir=tmp_path / "held", controllers={"fixed": law})
    set_once = run(output_dir=tmp_path / "flag", entropy_coef=0.5)
    none = run(output_dir=tmp_path / "none")
    assert same(parameters(held), parameters(set_once))
    assert not same(parameters(held), parameters(none))
