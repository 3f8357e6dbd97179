"""Text from a record, for people to read: one line, no control characters, not too long."""

from __future__ import annotations

import unicodedata

MAX_TEXT = 120
"""Longer text from a record is cut."""


def plain(text: str, most: int = MAX_TEXT) -> str:
    r"""One line without control, format or private characters, cut at `most`.

    It still has to be escaped for what it is written into.

    >>> plain("a\n\u202eb", 2), plain("x" * 9, 4)
    ('a…', 'xxx…')
    """
    shown = text
    if not (text.isascii() and text.isprintable()):
        shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else shown[: most - 1] + "…"
