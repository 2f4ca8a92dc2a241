"""The small reasoner's texts, tokens and rewards."""

import json
import random
import re

import pytest

from study import problems, reasoner, rewards
from trl_entropy.lab.pretrain import make_tokenizer
from trl_entropy.rewards import math_verify_reward


SAID = re.compile(
    r"(?P<whole>\d+)(?:-|minus )(?P<part>\d+)(?:=|is )(?P<rest>\d+);|(?P<left>\d+)leaves(?P<remains>\d+);"
)


def solved(number: int, seed: int) -> str:
    return reasoner.solution(number, random.Random(seed))


def test_a_solution_without_mistakes_is_right(monkeypatch):
    monkeypatch.setattr(reasoner, "WRONG", 0.0)
    numbers = reasoner.known_numbers()[::5]
    texts = [solved(number, number) for number in numbers]
    golds = [f"${number}$" for number in numbers]
    assert math_verify_reward(completions=texts, solution=golds) == [1.0] * len(texts)
    assert all(len(re.search(r"boxed\{(.*)\}", text)[1].split("+")) == 3 for text in texts)


def test_steps_say_what_they_compute(monkeypatch):
    monkeypatch.setattr(reasoner, "WRONG", 0.0)
    for number in reasoner.known_numbers():
        steps = list(SAID.finditer(solved(number, number)))
        assert len(steps) == 2
        for step in steps:
            if step["whole"]:
                assert int(step["whole"]) - int(step["part"]) == int(step["rest"])


def test_mistakes_are_as_often_as_said():
    # right: no step wrong, or mended, or a slip whose terms still add up, which a slip of the last step never does
    texts = [solved(150, seed) for seed in range(3000)]
    right = sum(sum(map(int, re.search(r"boxed\{(.*)\}", text)[1].split("+"))) == 150 for text in texts) / len(texts)
    unmended = reasoner.WRONG * (1 - reasoner.MENDED)
    assert right == pytest.approx((1 - unmended) ** 2, abs=0.03)
    assert sum("no " in text for text in texts) / len(texts) == pytest.approx(
        1 - (1 - reasoner.WRONG * reasoner.MENDED) ** 2, abs=0.02
    )


def test_words_are_tokens_and_decoding_gives_the_text():
    tokenizer = make_tokenizer(reasoner.WORDS, reasoner.VOCABULARY, reasoner.CONTEXT)
    text = r"choose 64minus 42=22;no 22-21is 1;hence \boxed{42+21+1}"
    assert tokenizer.tokenize(text)[:5] == ["choose ", "6", "4", "minus ", "4"]
    for number in reasoner.known_numbers():
        ids = tokenizer(solved(number, number))["input_ids"]
        assert tokenizer.decode(ids) == solved(number, number)
        assert len(ids) < reasoner.CONTEXT / 2


def test_held_out_numbers_are_other_ones():
    known, held_out = reasoner.known_numbers(), reasoner.held_out_numbers()
    assert sorted(known + held_out) == list(reasoner.NUMBERS)
    assert len(known) == reasoner.KNOWN


def test_noise_replaces_so_many_rewards_by_a_coin():
    random.seed(0)
    right, wrong = [r"\boxed{3}"] * 4000, [r"\boxed{4}"] * 4000
    for percent in (0, 25, 100):
        reward = getattr(rewards, f"noise_{percent}")
        assert reward.__name__ == f"noise_{percent}"
        found = reward(completions=right + wrong, solution=["$3$"] * 8000)
        share = percent / 200  # of the rewards of either kind that the coin turns
        assert sum(found[:4000]) / 4000 == pytest.approx(1 - share, abs=0.03 * (percent > 0))
        assert sum(found[4000:]) / 4000 == pytest.approx(share, abs=0.03 * (percent > 0))


def test_language_problems_are_conversations(tmp_path, monkeypatch):
    monkeypatch.setattr(problems, "CHAIN_SUM", tmp_path)
    with pytest.raises(ValueError, match=r"there is no file '.*train.jsonl': make study-language-model makes it"):
        problems.write_language(tmp_path / "study")
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"prompt": "4 - 4 =", "solution": "0"}\n')
    problems.write_language(tmp_path / "study")
    row = json.loads((tmp_path / "study" / "smollm2_test.jsonl").read_text())
    assert row["solution"] == "0"
    assert row["prompt"] == [problems.SYSTEM, {"role": "user", "content": "4 - 4 ="}]
