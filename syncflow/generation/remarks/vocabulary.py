"""What a model was not trained for: words that it never read, clips longer than it ever saw."""

from __future__ import annotations

import re
from collections.abc import Sequence

from syncflow.config import BytesTextConfig, ModelConfig

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
#: Words that say nothing by themselves; a model misses little where it does not know one.
_SMALL = frozenset(
    "a an and are as at be been being but by for from had has have he her his in into is it its of "
    "off on or our she so some that the their then there these they this those to up upon was we "
    "were while which who with you your".split()
)
_ENDINGS = ("ing", "ed", "es", "s", "e")


def remarks(config: ModelConfig, prompts: Sequence[str], seconds: float | None = None) -> list[str]:
    """Sentences about what a call asks beyond what the model was trained for; none where it does
    not, or where its config tells no vocabulary."""
    said = []
    vocabulary = config.vocabulary
    if vocabulary is not None and (words := unknown(config, prompts)):
        named = [f"'{word}'" for word in words[:4]] + (["others"] if len(words) > 4 else [])
        listed = " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)
        verb = "are" if named[1:] else "is"
        said.append(
            f"{listed} {verb} not in this model's vocabulary: {vocabulary.summary}; "
            "see --vocabulary"
        )
    trained = config.geometry.seconds
    if seconds is not None and seconds > trained * 1.001:
        said.append(
            f"{seconds:g} s is more than the {trained:g} s that this model was trained on: "
            "expect less of what comes after"
        )
    return said


def unknown(config: ModelConfig, prompts: Sequence[str]) -> list[str]:
    """The words of the prompts, in order and once each, that the model's vocabulary does not have;
    forms of its words, such as "bounced" for "bounces", count as known."""
    vocabulary, encoder = config.vocabulary, config.text_encoder
    if vocabulary is None:
        return []
    known = {
        word
        for group in vocabulary.words.values()
        for phrase in group
        for word in _WORD.findall(phrase.lower())
    }
    stems = {_stem(word) for word in known}
    # Bytes of capitals are other bytes; captions have them at their beginning alone.
    any_case = not isinstance(encoder, BytesTextConfig) or encoder.casefold

    def is_known(word: str) -> bool:
        plain = word.lower() if any_case or word[1:] == word[1:].lower() else word
        plain = plain.replace("\u2019", "'").removesuffix("'s")
        return plain in known or plain in _SMALL or _stem(plain) in stems

    words = [word for prompt in prompts for word in _WORD.findall(prompt)]
    return [word for word in dict.fromkeys(words) if not is_known(word)]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def told(config: ModelConfig) -> str:
    """The vocabulary as a person reads it: lines of words by what they say, and examples."""
    vocabulary = config.vocabulary
    if vocabulary is None:
        return f"{config.name} tells no vocabulary: it reads English at large"
    lines = [f"{config.name} knows {vocabulary.summary}.", ""]
    width = max(map(len, vocabulary.words))
    lines += [f"{name:<{width}}  {', '.join(words)}" for name, words in vocabulary.words.items()]
    lines += ["", "examples:", *(f"  {text}" for text in vocabulary.examples)]
    return "\n".join(lines)
