import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from trl_entropy.lab.evaluation.model import STEP_BY_STEP, encode, resolve_template


TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}+{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}={% endif %}{% if mark is defined %}{{ mark }}{% endif %}"
)


@pytest.fixture
def tokenizer(model_dir):
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def chat(tokenizer):
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def texts(prompts, tokenizer, template, **chat_kwargs) -> list[str]:
    return tokenizer.batch_decode(encode(prompts, tokenizer, template, **chat_kwargs))


def test_plain_is_the_problem_itself(chat):
    assert texts(["1+1=", "3"], chat, "plain") == ["1+1=", "3"]


def test_chat_is_a_user_message_and_qwen_math_has_a_system_message(chat):
    assert texts(["1+1"], chat, "chat") == ["1+1="]
    assert texts(["1+1"], chat, "qwen-math") == ["+1+1="]
    assert STEP_BY_STEP == "Please reason step by step, and put your final answer within \\boxed{}."


def test_conversation_is_left_as_it_is(chat):
    conversation = [{"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}]
    for template in ("plain", "chat", "qwen-math"):
        assert texts([conversation], chat, template) == ["34="]


def test_arguments_of_the_chat_template_reach_it(chat):
    assert texts(["3"], chat, "chat", mark="-") == ["3=-"]


def test_special_tokens_are_left_to_the_chat_template(chat):
    chat.chat_template = "<eos>" + TEMPLATE
    chat.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", chat.eos_token_id)]
    )
    assert texts(["3=", [{"role": "user", "content": "3"}]], chat, "plain") == ["<eos>3=", "<eos>3="]


def test_auto_takes_the_chat_template_if_there_is_one(tokenizer):
    assert resolve_template("auto", tokenizer) == "plain"
    tokenizer.chat_template = TEMPLATE
    assert resolve_template("auto", tokenizer) == "qwen-math"
    assert [resolve_template(name, tokenizer) for name in ("plain", "chat")] == ["plain", "chat"]


@pytest.mark.parametrize("template", ["chat", "qwen-math"])
def test_chat_without_a_chat_template_is_refused(tokenizer, template):
    with pytest.raises(ValueError, match=f"template='{template}' needs a tokenizer with a chat template"):
        resolve_template(template, tokenizer)


def test_conversation_without_a_chat_template_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the prompts are conversations, but the tokenizer has no chat template"):
        encode([[{"role": "user", "content": "3"}]], tokenizer, "plain")


def test_unknown_template_is_refused(tokenizer):
    with pytest.raises(ValueError, match="unknown template 'qwen'. Did you mean 'qwen-math'?"):
        resolve_template("qwen", tokenizer)
