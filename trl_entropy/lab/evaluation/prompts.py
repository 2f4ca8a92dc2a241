"""From problems to the tokens that a model continues."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ...checks import unknown


TEMPLATES = ("auto", "chat", "plain", "qwen-math")
# of the evaluation of Qwen2.5-Math, https://huggingface.co/papers/2409.12122
STEP_BY_STEP = r"Please reason step by step, and put your final answer within \boxed{}."


def resolve_template(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """
    One of [`TEMPLATES`] less "auto", which is "qwen-math" for a tokenizer with a chat template and "plain" without.

    Raises `ValueError` for an unknown template, and for one that needs the chat template that the tokenizer lacks.
    """
    if template not in TEMPLATES:
        raise unknown("template", template, TEMPLATES)
    if template == "auto":
        return "qwen-math" if tokenizer.chat_template else "plain"
    if template != "plain" and not tokenizer.chat_template:
        raise ValueError(f"template={template!r} needs a tokenizer with a chat template, and this one has none")
    return template


def encode(
    prompts: Sequence[str | list[dict[str, str]]], tokenizer: PreTrainedTokenizerBase, template: str, **chat_kwargs
) -> list[list[int]]:
    """
    Tokens of each prompt.

    Args:
        prompts (`Sequence[str]` or `Sequence[list[dict[str, str]]]`):
            Problems, or conversations, which go through the chat template as they are.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer of the model.
        template (`str`):
            What is done to a problem: "plain" nothing, "chat" makes it a user message, "qwen-math" puts the system
            message of the Qwen2.5-Math evaluation before that.
        **chat_kwargs:
            For the chat template.

    Raises `ValueError` for a conversation where there is no chat template.
    """
    encoded = []
    for prompt in prompts:
        if isinstance(prompt, str) and template != "plain":
            system = [{"role": "system", "content": STEP_BY_STEP}] if template == "qwen-math" else []
            prompt = [*system, {"role": "user", "content": prompt}]
        is_text = isinstance(prompt, str)
        if not is_text and not tokenizer.chat_template:
            raise ValueError("the prompts are conversations, and the tokenizer has no chat template: give text")
        text = (
            prompt
            if is_text
            else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **chat_kwargs)
        )
        # a chat template has written the special tokens already
        encoded.append(tokenizer(text, add_special_tokens=is_text)["input_ids"])
    return encoded
