"""Captions and labels corrected by hand: an overlay that every reader takes, safe against kills and other viewers."""

import json
import threading

import msgspec
import pytest

from pipeline.store.local import LocalStorage
from pipeline.viewer.edits import Edits
from pipeline.viewer.selection import parse
from pipeline.viewer.table import NotHereError
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.hashes import text_hash
from tests.pipeline.viewer.data import region_id, write_data
from tests.pipeline.viewer.serving import serving

A0 = ("train-000000", "a", region_id("a", 0))


def captions(url, key="a", overlays=("edits",)):
    return [(one.caption, one.label) for one in Dataset.open(url, overlays=overlays).read_sample(key).record.regions]


def test_an_edit_is_an_overlay_of_its_region_alone(url, session):
    answer = session.edit(*A0, caption="  a  ginger\tcat ", label="tom cat")
    assert msgspec.to_builtins(answer) == {
        "edit": {"key": "a", "region_id": A0[2], "caption": "a ginger cat", "label": "tom cat"},
        "num_edits": 1,
    }
    assert captions(url) == [("a ginger cat", "tom cat"), ("a dog", "dog")]
    region = Dataset.open(url, overlays=["edits"]).read_sample("a").record.regions[0]
    assert (region.captioner, region.caption_score) == ("edits", None)
    assert region.text_hash == text_hash("a ginger cat")
    assert captions(url, "d") == captions(url, "d", overlays=())


def test_a_label_alone_leaves_the_caption_as_it_is(url, session):
    session.edit(*A0, caption="a red cat", label="lynx")
    edited, before = (
        Dataset.open(url, overlays=overlays).read_sample("a").record.regions[0] for overlays in (["edits"], [])
    )
    assert edited == msgspec.structs.replace(before, label="lynx")


def test_edits_are_taken_back(url, session):
    session.edit(*A0, caption="one", label=None)
    session.edit(*A0, caption="two", label="x")
    assert captions(url)[0] == ("two", "x")
    assert session.edit(*A0, caption=None, label=None) == {"edit": None, "num_edits": 0}
    assert captions(url) == captions(url, overlays=())
    session.edit(*A0, caption="two", label="x")
    assert session.edit(*A0, caption="a red cat", label="cat")["edit"] is None, "as the data have it: no edit"


def test_edits_are_seen_again(url, session, open_session):
    session.edit(*A0, caption="a ginger cat", label="cat")
    again = open_session(url)
    for page in (again.page(parse("")), again.crops(parse("")), again.image("train-000000", "a")):
        assert [(edit.key, edit.caption) for edit in page["edits"]] == [("a", "a ginger cat")]
    assert again.about()["edits"]


def test_compare_shows_old_beside_new(url, session, open_session):
    session.edit(*A0, caption="a ginger cat", label="cat")
    compared = open_session(url, other="edits")
    page = compared.compared_page(parse("diff=changed"))
    (item,) = page["items"]
    pair = item["pairs"][0]
    assert pair.differences == ("caption",)
    assert item["ours"].regions[pair.ours].fields["caption"] == "a red cat"
    assert item["theirs"].regions[pair.theirs].fields["caption"] == "a ginger cat"
    assert compared.differences()["captions_changed"] == 1


@pytest.mark.parametrize(
    ("region", "caption", "label", "error", "message"),
    [
        (A0, " ?! ", None, DatasetError, "says nothing; mark the region as bad"),
        (A0, "x" * 2001, None, DatasetError, "2001 characters; 2000 are allowed"),
        (A0, "fine", "y" * 2001, DatasetError, "the label has 2001 characters"),
        (("train-000000", "a", "f" * 16), "fine", None, NotHereError, "there is no region a/ffff"),
        (("train-000000", "z", ""), "fine", None, NotHereError, "there is no region z/"),
    ],
)
def test_what_makes_no_sense_is_refused(url, session, tmp_path, region, caption, label, error, message):
    with pytest.raises(error, match=message):
        session.edit(*region, caption=caption, label=label)
    assert not list(tmp_path.rglob("*edits*"))


def test_a_region_that_is_not_ok_has_nothing_to_correct(url, session):
    rows = Dataset.open(url).regions().to_pylist()
    filtered = next(row["region_id"] for row in rows if row["key"] == "a" and row["status"] == "filtered")
    with pytest.raises(DatasetError, match="is not ok"):
        session.edit("train-000000", "a", filtered, caption="fine", label=None)


def test_where_edits_are_shown_already_none_are_made(url, session, open_session):
    session.edit(*A0, caption="a ginger cat", label="cat")
    shown = open_session(url, overlays=["edits"])
    assert not shown.about()["edits"]
    with pytest.raises(DatasetError, match="not where --overlay edits shows them already"):
        shown.edit(*A0, caption="again", label=None)


def test_edits_of_two_viewers_at_once_are_all_kept(url, open_session):
    regions = [A0, ("train-000000", "a", region_id("a", 1)), ("train-000000", "b", region_id("b", 0))]
    sessions = [open_session(url) for _ in regions]

    def edit(number):
        for count in range(4):
            sessions[number].edit(*regions[number], caption=f"viewer {number} said {count}", label=None)

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [caption for caption, _ in captions(url) + captions(url, "b")]
    assert said == [f"viewer {number} said 3" for number in range(3)]


@pytest.mark.parametrize("operation", ["create", "publish", "replace", "remove"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_edit_that_was_cut_off_is_never_half_made(url, session, open_session, monkeypatch, operation, when):
    session.edit(*A0, caption="a first text", label="cat")
    undisturbed = getattr(LocalStorage, operation)

    def dying(self, *arguments):
        if when == "after":
            undisturbed(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(LocalStorage, operation, dying)
        session.edit(*A0, caption="another text", label="cat")
    again = open_session(url)
    is_made = (operation, when) != ("create", "before")
    caption = "another text" if is_made else "a first text"
    assert [edit.caption for edit in again.page(parse(""))["edits"]] == [caption]
    assert captions(url)[0] == (caption, "cat")
    again.edit(*A0, caption="a third text", label="cat")
    assert captions(url)[0] == ("a third text", "cat")


def test_edits_go_over_the_wire(url, session):
    with serving(session) as client:
        own = {"Origin": client.origin, "Content-Type": "application/json"}
        body = {"shard": A0[0], "key": A0[1], "region_id": A0[2], "caption": "a ginger cat", "label": "cat"}
        send = lambda sent, **more: client.request(  # noqa: E731
            "POST", "/api/edit", body=json.dumps(sent).encode(), headers=own | more
        )
        assert send(body, Origin="http://evil.example").status == 403
        assert send(body | {"caption": 7}).status == 400
        assert send(body | {"caption": "?"}).status == 422
        assert send(body | {"region_id": "0" * 16}).status == 404
        assert send(body).json == {
            "edit": {"key": "a", "region_id": A0[2], "caption": "a ginger cat", "label": "cat"},
            "num_edits": 1,
        }


def test_edits_hold_where_a_shard_is_written_again(url, session, open_session):
    session.edit(*A0, caption="a ginger cat", label="cat")
    write_data(url, dead=("y",))
    assert captions(url)[0] == ("a ginger cat", "cat")
    assert len(Edits(LocalStorage(url), Dataset.open(url).markers)) == 1
