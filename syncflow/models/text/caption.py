"""Caption cleaning in front of T5-v1.1-XXL, as Open-Sora v1.2 was trained with.

The rules are DeepFloyd IF's: made for captions scraped from the web, they strip addresses, file
names, article numbers and shop phrases. Their order matters, and so do their oddities (numbers of
six digits vanish): a prompt has to reach T5 in the form that the tower saw in training.

Captions come from strangers, so every rule takes time in proportion to their length: a pattern must
not be tried from every letter of a run that it reads to the end, nor split a run in many ways.
"""

from __future__ import annotations

import html
import re
import warnings
from html.parser import HTMLParser
from urllib.parse import unquote_plus

#: Characters that are looked at; T5 reads 300 sub-words, which are some 1,400 letters.
LONGEST = 4096

# No host has a longer name than 253 characters.
_DOMAIN = r"[a-zA-Z0-9.\-]{1,253}\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_DASHES = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0"
    "\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_SIGNS = "#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~"
_FILE_TYPES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"

_Rules = list[tuple[re.Pattern[str], str]]


def _rules(*rules: tuple[str, str]) -> _Rules:
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


_ADDRESSES = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{_DOMAIN})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{_DOMAIN})", ""),
)
_CHARACTERS = _rules(
    (r"@\w+\b", ""),  # nicknames
    ("[\u31c0-\u9fff]+", ""),  # CJK strokes to unified ideographs
    (f"[\\{_DASHES}]+", "-"),
    ("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),
    ("[\u2018\u2019]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # IP addresses
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"(?<!\S)\S+\.(?:{_FILE_TYPES})", ""),
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (f"[{_SIGNS}()\\[\\]{{}}|\\\\/*]+", " "),
    (r"(?<!\s)\s+\.\s+", " "),
)
_WORD_JOINER = re.compile("[-_]")
_JUNK = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_FILE_TYPES})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d[a-zA-Z\d]*\b", " "),
    # Sizes: 640x480, with any kind of x.
    ("\\b\\d+(?:\\.\\d*)?[x\u0445\u00d7]\\d+(?:\\.\\d*)?\\b", ""),
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


class _Text(HTMLParser):
    """Collects what a browser would show."""

    _hidden = ("script", "style", "template")

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._depth = 0

    def parse_html_declaration(self, i: int) -> int:
        if self.rawdata.startswith("<![", i):  # a comment to a browser, an error to Python's parser
            return self.parse_bogus_comment(i)
        return super().parse_html_declaration(i)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._depth += tag in self._hidden

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag in self._hidden and self._depth > 0

    def handle_data(self, data: str) -> None:
        if not self._depth:
            self.pieces.append(data)


def _visible_text(caption: str) -> str:
    parser = _Text()
    parser.feed(caption)
    parser.close()
    return "".join(parser.pieces)


def _fix_text(caption: str) -> str:
    if caption.isascii():
        return caption
    try:
        import ftfy
    except ImportError:
        warnings.warn(
            "ftfy is not installed: mis-decoded characters in captions stay as they are",
            stacklevel=3,
        )
        return caption
    return str(ftfy.fix_text(caption))


def _apply(rules: _Rules, caption: str) -> str:
    for pattern, replacement in rules:
        caption = pattern.sub(replacement, caption)
    return caption


def clean_caption(caption: str) -> str:
    """One pass of the cleaning; Open-Sora applies it twice. What lies beyond ``LONGEST`` characters
    is left out."""
    caption = _apply(_ADDRESSES, unquote_plus(caption[:LONGEST]).strip().lower())
    caption = _apply(_CHARACTERS, _visible_text(caption))
    if len(_WORD_JOINER.findall(caption)) > 3:
        caption = _WORD_JOINER.sub(" ", caption)
    caption = html.unescape(html.unescape(_fix_text(caption)))
    return _apply(_JUNK, caption).strip()
