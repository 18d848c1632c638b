"""What Python, numpy and torch print around the items of a list."""

import re

CALL = re.compile(r"(?:\w{1,9}\.)?(?:array|tensor|set|frozenset)\(")
NUMBER = re.compile(r"\b(?:np|numpy)\.\w{1,20}\(([^()]*)\)")
CLOSING = {"[": "]", "{": "}", "(": ")"}


def is_call(text: str) -> bool:
    return CALL.match(text) is not None and text.endswith(")")


def unwrapped(text: str) -> str:
    """`[1, 2]` for `array([1, 2], dtype=int8)` and `[np.int8(1), np.int8(2)]`."""
    text = NUMBER.sub(r"\1", text)
    while (call := CALL.match(text)) and text.endswith(")"):
        text = text[call.end() : -1].strip() or "[]"
        text = text[: text.rfind(CLOSING.get(text[0], text[-1])) + 1]  # without dtype, device …
    return text
