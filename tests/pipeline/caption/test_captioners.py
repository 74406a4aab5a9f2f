import pytest

from pipeline.caption import CAPTIONERS, captioner_class


def test_a_name_gives_its_class():
    rule = captioner_class("rule")
    assert "rule" in CAPTIONERS
    assert rule(rule.config_class(batch_size=3)).batch_size == 3


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_batch_of_nothing_is_refused_by_its_flag(name):
    with pytest.raises(ValueError, match=r"--caption\.batch-size is 0, but must be at least 1"):
        captioner_class(name).config_class(batch_size=0)


@pytest.mark.parametrize("name", CAPTIONERS)
def test_whether_one_answer_is_right_is_asked_of_all_models(name):
    assert hasattr(captioner_class(name).config_class(), "allow_constant") == (name not in ("rule", "label", "given"))


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown captioner 'poet'; known: .*rule"):
        captioner_class("poet")
