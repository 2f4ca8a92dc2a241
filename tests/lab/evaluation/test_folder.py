import json
from dataclasses import replace

import numpy as np
import pytest

from trl_entropy.lab.evaluation.folder import Folder, Line, read_lines
from trl_entropy.lab.evaluation.scoring import samples_of
from trl_entropy.rewards import Verifier


LINE = Line(0, 0, "2+2=", "4", "a", "4", True, "correct", 3, -0.5, 0.25, 1.5)
LINES = [replace(LINE, problem=problem, sample=sample) for problem in range(2) for sample in range(3)]


def test_lines_are_kept_as_they_were_written(tmp_path):
    folder = Folder(tmp_path)
    hard = replace(LINES[1], response='\u2028 "{\n', answer=None, prompt_entropy=None, logprob=-1e-17)
    folder.append(LINES[:1])
    folder.append([hard])
    assert read_lines(tmp_path / "samples.jsonl") == [LINES[0], hard]


def test_line_that_was_cut_is_dropped_and_the_file_goes_on(tmp_path):
    file = tmp_path / "samples.jsonl"
    folder = Folder(tmp_path)
    folder.append(LINES[:3])
    file.write_bytes(file.read_bytes()[:-1])  # even if only the end of the line is missing
    assert folder.join() == LINES[:2]
    folder.append(LINES[2:4])
    assert folder.join() == LINES[:4]


def test_any_other_broken_line_is_named(tmp_path):
    file = tmp_path / "samples.jsonl"
    Folder(tmp_path).append(LINES[:3])
    text = file.read_text().splitlines()
    for broken in ('{"problem": 0}', "no"):
        file.write_text("\n".join([text[0], broken, text[2]]) + "\n")
        with pytest.raises(ValueError, match="line 2 of .*samples.jsonl' is not a sample"):
            read_lines(file)


def test_parts_are_joined_in_the_order_of_problems(tmp_path):
    Folder(tmp_path).append([LINES[5]])
    Folder(tmp_path, part=0).append([LINES[3], LINES[0]])
    Folder(tmp_path, part=1).append([LINES[4], LINES[1]])
    assert Folder(tmp_path).join() == [LINES[0], LINES[1], LINES[3], LINES[4], LINES[5]]
    assert [file.name for file in tmp_path.iterdir()] == ["samples.jsonl"]
    assert read_lines(tmp_path / "samples.jsonl") == Folder(tmp_path).join()


def test_sample_that_stands_in_two_files_counts_once(tmp_path):
    Folder(tmp_path).append(LINES[:2])
    Folder(tmp_path, part=0).append(LINES[1:3])
    assert Folder(tmp_path).join() == LINES[:3]


def test_other_settings_are_refused_with_what_differs(tmp_path):
    folder = Folder(tmp_path / "new")
    folder.claim({"seed": 0, "num_samples": 4, "template": "plain"})
    folder.claim({"seed": 1, "num_samples": 4, "template": "plain"})  # nothing has been drawn yet
    folder.claim({"seed": 0, "num_samples": 4, "template": "plain"})
    folder.append(LINES[:1])
    with pytest.raises(ValueError, match="other settings: seed was 0, now 1; template was 'plain', now 'chat'. Set"):
        folder.claim({"seed": 1, "num_samples": 4, "template": "chat"})
    with pytest.raises(ValueError, match="other settings: top_p was None, now 0.5. Set"):
        folder.claim({"seed": 0, "num_samples": 4, "template": "plain", "top_p": 0.5})
    assert json.loads((tmp_path / "new" / "settings.json").read_text())["seed"] == 0


def test_more_samples_may_be_asked_for_but_not_fewer(tmp_path):
    folder = Folder(tmp_path)
    folder.claim({"num_samples": 4})
    folder.claim({"num_samples": 8})
    folder.append(LINES[:1])
    with pytest.raises(ValueError, match="num_samples was 8, now 4"):
        folder.claim({"num_samples": 4})


@pytest.mark.parametrize("name", ["samples.jsonl", "results.json", "pass_at_k.png", "calibration.png"])
def test_file_that_no_evaluation_has_left_is_kept(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {name} but no settings.json of an evaluation: set another"):
        Folder(tmp_path).claim({"num_samples": 4})
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize("text", ["{", "[1]", '{"editor": 1}', "// mine\n{}"])
def test_settings_of_something_else_are_kept(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match="settings.json' does not belong to an evaluation: set another output_dir"):
        Folder(tmp_path).claim({"num_samples": 4})
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("settings.json", text)]


def test_samples_have_the_shape_of_problems(tmp_path):
    lines = [
        replace(line, correct=line.sample == 1, length=10 * line.problem + line.sample, prompt_entropy=entropy)
        for line, entropy in zip(LINES, [1.0, 1.0, 1.0, None, None, None], strict=True)
    ]
    samples = samples_of(lines, 3, Verifier(workers=1))
    assert samples.answers.tolist() == [[0] * 3] * 2
    assert samples.correct.tolist() == [[False, True, False]] * 2
    assert samples.correct.dtype == bool
    assert samples.lengths.tolist() == [[0, 1, 2], [10, 11, 12]]
    assert samples.prompt_entropies.tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    assert samples.texts == [["a"] * 3] * 2
