"""Caption cleaning: the right-hand sides were computed with the original rules."""

import pytest

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
