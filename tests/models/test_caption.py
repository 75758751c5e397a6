"""Caption cleaning: the right-hand sides were computed with the original rules."""

import time

import pytest

from syncflow.models.text import caption as captions
from syncflow.models.text.caption import clean_caption

CASES = {
    "  A Metal Ball\nbounces,three times ": "a metal ball bounces, three times",
    "see https://www.example.com/a/b or <b>bold</b> &amp; @nick": "see or bold",
    "\u201cquoted\u201d \u9f13 drum \u2014 it\u2019s 3.5\u00d72": '"quoted" drum - it\'s',
    "this-is-my-cute-cat, img_01.jpg jc6640vc": "this is my cute cat,",
    "'a spoon (steel) hits\\n 1234567 #123'": "a spoon steel hits",
    "free shipping: wood/stone .... page 12": "wood stone",
}


@pytest.mark.filterwarnings("ignore:ftfy")
@pytest.mark.parametrize("caption", CASES)
def test_known_captions(caption):
    assert clean_caption(caption) == CASES[caption]


def test_plain_captions_are_left_alone():
    caption = "a small red ball of wood bounces three times on a stone floor."
    assert clean_caption(caption) == caption


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("a ball <![CDATA[x]]> falls", "a ball falls"),
        ("a ball <![", "a ball <!"),
        ("a ball <![if x]> bounces <!doctype y>", "a ball bounces"),
        ("wood.png.jpg rest", "rest"),
        (".png", "."),
        ("a . . b", "a b"),
        ("12.5x3. 1a1b1c 4\u00d74", "12"),
    ],
)
@pytest.mark.filterwarnings("ignore:ftfy")
def test_odd_captions(caption, cleaned):
    assert clean_caption(clean_caption(caption)) == cleaned


UNITS = (
    "a", "1", " ", "a.", "a-", ".", "<", "<!", "<![", "<a ", "<a b='", "</", "<!--", "<?", "&",
    "&#", "1a", "a1", "_", "'", ".com", "a.png", "free ", "worldwide ", "\t.", "%25", "@a", "1.",
)  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.filterwarnings("ignore:ftfy")
def test_a_long_caption_takes_no_long_time(unit):
    begin = time.process_time()
    for tail in ("", "_", "@"):
        clean_caption(clean_caption((unit * 16_000)[:16_000] + tail))
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("unit", (*UNITS, "a1b" + 15_000 * "1" + "_", 15_000 * "1" + "a"))
def test_every_rule_takes_time_in_proportion(unit):
    """Without the bound on the length, too."""
    long = (unit * 16_000)[:16_000] + "@"
    for rules in (captions._ADDRESSES, captions._CHARACTERS, captions._JUNK):
        begin = time.process_time()
        captions._apply(rules, long)
        assert time.process_time() - begin < 1.5


@pytest.mark.filterwarnings("ignore:ftfy")
def test_what_no_encoder_reads_is_left_out():
    beginning = "a ball falls on wood, " * 200
    cleaned = clean_caption(beginning)
    assert cleaned == clean_caption(beginning + "and " * 100_000)
    assert len(cleaned) > 1400  # 300 sub-words of English
