import math
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.viewer.selection import Selection, SelectionError, parse


def test_nothing_selects_what_is_ok_in_the_order_of_the_data():
    assert parse("") == Selection()
    assert parse("?") == parse([]) == parse("open=train-000000/a&colour=status")


def test_each_parameter_is_read():
    query = "?q=red+%22wooden+table%22&label=cat&label=dog&proposal_score=0.5..&area=..0.25&key=a&mark=bad&diff=changed"
    selection = parse(query + "&sort=-area&seed=7&page=3&status=any")
    assert selection == Selection(
        one_of=(("label", ("cat", "dog")),),
        ranges=(("proposal_score", 0.5, math.inf), ("area", -math.inf, 0.25)),
        terms=("red", "wooden table"),
        key="a",
        mark="bad",
        changed_only=True,
        sort="area",
        descending=True,
        seed=7,
        page=3,
    )


def test_a_reason_is_looked_for_in_every_status():
    assert parse("reason=small").one_of == (("reason", ("small",)),)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("colour_by=x", "colour_by"),
        ("area=0.5", "area"),
        ("area=b..c", "area"),
        ("area=0.9..0.1", "area"),
        ("area=nan..nan", "area"),
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=99999999999999999999999", "page"),
        ("page=²", "page"),
        ("seed=x", "seed"),
        ("sort=key", "sort"),
        ("mark=maybe", "mark"),
        ("status=gone", "status"),
        ("diff=all", "diff"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(query, named):
    with pytest.raises(SelectionError, match=named):
        parse(query)


@given(st.text(), st.text(min_size=1))
def test_values_are_parameters_and_never_sql(text, label):
    phrase = text.replace('"', "").strip() or "x"
    sql, values = parse(urlencode({"q": f'"{phrase}"', "label": label, "key": "z"})).where()
    # Only whether the text has capitals decides how it is looked for.
    assert sql in {parse(query).where()[0] for query in ("q=x&label=y&key=z", "q=1&label=y&key=z")}
    assert sql.count("?") == len(values) and label in values
