import pytest

from pipeline.caption import CAPTIONERS, captioner_class


def test_a_name_gives_its_class():
    rule = captioner_class("rule")
    assert "rule" in CAPTIONERS
    assert rule(rule.config_class(batch_size=3)).batch_size == 3


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown captioner 'poet'; known: .*rule"):
        captioner_class("poet")
