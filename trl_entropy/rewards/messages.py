"""Get text from prompts and completions: strings, or messages whose content is a string or a list of parts."""

from collections.abc import Iterable, Mapping, Sequence


Messages = list[Mapping[str, object]]
ASKING = ("user", "developer")  # roles whose messages are the problem


def text_in(content: str | list[Mapping] | None) -> str:
    """The content of a message as text, with text parts joined; `""` if it has none, as in a tool call."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    return "".join(part.get("text") or "" for part in parts if part.get("type") == "text")


def text_of(prompt: str | Messages) -> str:
    """A problem as text: the prompt itself, or the user's messages in a conversation."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(text_in(message.get("content")) for message in prompt if message["role"] in ASKING)


def content(completion: str | list[Mapping]) -> str:
    """The text of a completion, or of its last assistant message; `""` if there is none, as in a tool call."""
    if isinstance(completion, str):
        return completion
    by_policy = [message.get("content") for message in completion if message.get("role") == "assistant"]
    return text_in(by_policy[-1]) if by_policy else ""


def policy_texts(completions: list, policy_text: list[str] | None = None) -> list[str]:
    """The text that the policy wrote: its own tokens' text if the trainer passes it, else [`content`]."""
    return [content(completion) for completion in completions] if policy_text is None else list(policy_text)


def has_image(prompt: str | Messages) -> bool:
    """Whether a message has an image among its parts."""
    contents = [] if isinstance(prompt, str) else [message.get("content") for message in prompt]
    return any(part.get("type") == "image" for content in contents if isinstance(content, list) for part in content)


def with_plain_text(prompt: str | Messages) -> str | Messages:
    """
    The prompt, with content that only has text parts as a string.

    The chat templates of language models join strings: most fail on a list, and some print it.
    """
    if isinstance(prompt, str):
        return prompt
    return [
        {**message, "content": text_in(message["content"])} if _is_text(message.get("content")) else message
        for message in prompt
    ]


def check_prompts(prompts: Iterable[object], column: str, source: str = "the dataset") -> None:
    """Raise `ValueError` with row and column for a prompt that is missing, or neither text nor messages."""
    for row, prompt in enumerate(prompts):
        wrong = _wrong(prompt)
        if wrong is not None:
            raise ValueError(f"row {row} of {source} has {wrong[0]} in column {column!r}: {wrong[1]}")


def check_one_kind(prompts: Sequence[str | Messages], column: str) -> None:
    """Raise `ValueError` with row and column if some prompts are text and others conversations."""
    for row, prompt in enumerate(prompts):
        if isinstance(prompt, str) != isinstance(prompts[0], str):
            kinds = ("text", "a conversation") if isinstance(prompt, str) else ("a conversation", "text")
            raise ValueError(
                f"row {row} of the dataset has {kinds[0]} in column {column!r}, and row 0 has {kinds[1]}: give all "
                "prompts as text, or all as conversations"
            )


def _wrong(prompt: object) -> tuple[str, str] | None:
    """The fault of a prompt, and what to do about it; None if it is fine."""
    if prompt is not None and not isinstance(prompt, str):
        if not _is_conversation(prompt):
            return (
                f"the prompt {repr(prompt)[:100]}",
                "give text, or messages with role and content, where content is text or parts of type text or image",
            )
        if prompt and all(message["role"] not in ASKING for message in prompt):
            return "no message of the user", "drop it"
    if not prompt or not (text_of(prompt).strip() or has_image(prompt)):
        return "no prompt", "drop it"
    return None


def _is_conversation(prompt: object) -> bool:
    return _are_mappings(prompt) and all(
        isinstance(message.get("role"), str) and _is_content(message.get("content")) for message in prompt
    )


def _is_content(content: object) -> bool:
    return content is None or isinstance(content, str) or _are_mappings(content) and all(map(_is_part, content))


def _is_part(part: Mapping) -> bool:
    return part.get("type") in ("text", "image")


def _are_mappings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _is_text(content: object) -> bool:
    return isinstance(content, list) and all(part.get("type") == "text" for part in content)
