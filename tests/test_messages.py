"""Prompts and completions as text, and which prompts are refused."""

import pytest

from trl_entropy.rewards.messages import check_prompts, has_image, text_in, text_of, with_plain_text


IMAGE = {"type": "image", "image": "a.png"}


def user(content) -> list[dict]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]


def text(*parts: str) -> list[dict]:
    return [{"type": "text", "text": part} for part in parts]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("1+1=", "1+1="),
        (text("1+1=", "2"), "1+1=2"),
        ([IMAGE, *text("1+1="), {"type": "text"}], "1+1="),
        ([{"type": "image", "text": "not read"}], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_text_of_content(content, found):
    assert text_in(content) == found


@pytest.mark.parametrize("prompt", ["1+1=", user("1+1="), user(text("1+", "1="))])
def test_problem_of_a_conversation_is_what_the_user_says(prompt):
    assert text_of(prompt) == "1+1="


def test_problem_of_several_messages_has_a_line_for_each():
    assert text_of([*user("1"), {"role": "assistant", "content": None}, *user(text("2"))]) == "1\n2"


def test_content_of_text_parts_becomes_a_string_and_other_content_stays():
    assert with_plain_text(user(text("1+", "1="))) == with_plain_text(user("1+1=")) == user("1+1=")
    assert with_plain_text("1+1=") == "1+1="
    for content in ([IMAGE, *text("1")], None):
        assert with_plain_text(user(content)) == user(content)
    call = {"role": "assistant", "tool_calls": []}
    assert with_plain_text([call]) == [call]


def test_images_are_found():
    assert has_image(user([*text("1"), IMAGE]))
    assert not any(map(has_image, ["1", user("1"), user(text("1")), user(None)]))


@pytest.mark.parametrize(
    "prompt", ["1", user("1"), user(text("1")), user([IMAGE]), [{"role": "developer", "content": "1"}]]
)
def test_prompts_that_can_be_asked_are_taken(prompt):
    check_prompts([prompt], "prompt")


@pytest.mark.parametrize(
    "prompt",
    [5, 0, 2.5, True, ["1+1="], {"role": "user"}, [{"from": "human", "value": "1"}], user([{"type": "image_url"}])],
)
def test_what_is_neither_text_nor_messages_is_refused_with_row_and_column(prompt):
    line = "row 1 of 'mine.jsonl' has the prompt .* in column 'question': give text, or messages with role"
    with pytest.raises(ValueError, match=line):
        check_prompts(["1", prompt], "question", "'mine.jsonl'")


def test_a_long_prompt_is_cut_in_the_line():
    with pytest.raises(ValueError, match="give text") as caught:
        check_prompts([["1\n" * 1000]], "prompt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
