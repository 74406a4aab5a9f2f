import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import MEANING_OF, STATUS_OF, Reason, Status
from schemas.records import (
    Counts,
    FileDigest,
    ImageRecord,
    ImageSource,
    OverlayMarker,
    RecordError,
    Region,
    ShardMarker,
    decode_image_record,
    decode_overlay_marker,
    decode_shard_marker,
    encode,
)
from tests.shards import tiny_sample

RECORD = tiny_sample("a", num_regions=2).record
DIGEST = FileDigest(sha256="0" * 64, size=1)
MARKER = ShardMarker(
    schema_version="1",
    shard="train-000000",
    fingerprint="f" * 64,
    images=Counts(inputs=3, ok=1, filtered={"small": 1}, dead={"decode": 1}),
    regions=Counts(),
    tar=DIGEST,
    parquet=DIGEST,
    sources=[],
    provenance={"b": {"d": 1, "c": [0.5]}, "a": None},
)
OVERLAY_MARKER = OverlayMarker(
    schema_version="1",
    shard="train-000000",
    overlay="blip2",
    fingerprint="f" * 64,
    base_sha256="0" * 64,
    columns=["label"],
    num_rows=1,
    parquet=DIGEST,
    provenance={},
)

text = st.text(st.characters(exclude_categories=["Cs"]))
scores = st.integers(0, 10**4).map(lambda score: score / 1e4)
corners = st.integers(0, 100 * 16 - 1).map(lambda corner: corner / 16)
regions = st.builds(
    Region,
    id=st.uuids().map(lambda uuid: uuid.hex[:16]),
    box=st.tuples(corners, corners).map(lambda corner: (corner[0], corner[1], 100.0, 100.0)),
    label=st.none() | text,
    proposer=text,
    proposal_score=scores,
    caption=text,
    captioner=text,
    caption_score=st.none() | scores,
    text_hash=text,
    source_id=st.none() | text,
    is_crowd=st.none() | st.booleans(),
    mask_rle=st.none() | text,
)


@st.composite
def image_records(draw):
    captions = draw(st.lists(text, max_size=3))
    drawn = draw(st.lists(regions, max_size=3, unique_by=lambda region: region.id))
    return ImageRecord(
        schema_version="1",
        key=draw(st.from_regex(r"[a-z0-9_-]+", fullmatch=True)),
        width=100,
        height=100,
        image_sha256="0" * 64,
        reencoded=draw(st.booleans()),
        image_caption=captions[0] if captions else None,
        source=ImageSource(uri=draw(text), index=0, url=draw(st.none() | text), license=None),
        num_regions=len(drawn),
        regions=drawn,
        image_captions=captions,
    )


@given(image_records())
def test_records_come_back_and_give_the_same_bytes(record):
    encoded = encode(record)
    assert decode_image_record(encoded, "here") == record
    assert encode(decode_image_record(encoded, "here")) == encoded


def test_markers_come_back_and_give_the_same_bytes():
    assert decode_shard_marker(encode(MARKER), "here") == MARKER
    assert decode_overlay_marker(encode(OVERLAY_MARKER), "here") == OVERLAY_MARKER
    shuffled = msgspec.structs.replace(MARKER, provenance={"a": None, "b": {"c": [0.5], "d": 1}})
    assert encode(shuffled) == encode(MARKER)


def broken(**changes):
    """Return the JSON of RECORD with fields replaced; those set to ... are removed."""
    fields = json.loads(encode(RECORD)) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def broken_region(**changes):
    """Return the JSON of RECORD with fields of its second region replaced."""
    first, second = json.loads(encode(RECORD))["regions"]
    return broken(regions=[first, {name: value for name, value in (second | changes).items() if value is not ...}])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Input data was truncated"),
        (b'{"key":"\xff"}', "can't decode byte 0xff"),
        (broken(schema_version="2"), "schema_version"),
        (broken(image_captions=["two"]), "key 'a': image_captions: the first is not image_caption"),
        (b'{"x":' + b"[" * 100_000, "recursion"),
        (broken(width=...), "missing required field `width`"),
        (broken(width="8"), r"Expected `int`, got `str` - at `\$.width`"),
        (broken(key="A.b"), r"key 'A.b': key: does not match"),
        (broken(height=0), "key 'a': width, height: 48 x 0"),
        (broken(num_regions=1), "key 'a': num_regions: says 1, but there are 2"),
        (broken_region(caption=...), r"missing required field `caption` - at `\$.regions\[1\]`"),
        (broken_region(box=[0, 0, 1]), r"at `\$.regions\[1\].box`"),
        (
            broken_region(box=[0, 0, 49, 1]),
            r"key 'a': regions\[1\].box: \[0.0, 0.0, 49.0, 1.0\] is not a box inside",
        ),
        (broken_region(box=[3, 0, 3, 1]), r"regions\[1\].box"),
        (broken_region(box=[-1, 0, 3, 1]), r"regions\[1\].box"),
        (broken_region(id=RECORD.regions[0].id), r"key 'a': regions\[\].id: two regions have the same id"),
        (broken().replace(b"48", b"1e999"), "Number out of range"),
    ],
)
def test_a_broken_record_is_named_with_its_field(data, message):
    with pytest.raises(RecordError, match=rf"^train-000000\.tar: a\.json: .*{message}"):
        decode_image_record(data, "train-000000.tar: a.json")


def test_fields_of_a_later_release_are_passed_over_and_those_of_an_earlier_one_have_defaults():
    assert decode_image_record(broken(colour="red"), "here") == RECORD
    older = decode_image_record(broken(image_captions=...), "here")
    assert (older.image_caption, older.image_captions) == ("two shapes", [])
    region = decode_image_record(broken_region(source_id=..., is_crowd=..., mask_rle=..., mood="good"), "here")
    assert region == RECORD


def test_an_error_says_which_release_wrote_the_file():
    marker = json.loads(encode(MARKER)) | {"written_by": "fineclip-regions 9.9", "images": 3}
    with pytest.raises(RecordError, match=r"^here: .*written by fineclip-regions 9\.9"):
        decode_shard_marker(json.dumps(marker).encode(), "here")
    with pytest.raises(RecordError, match="written by a release that does not say"):
        decode_shard_marker(encode(RECORD), "here")


@pytest.mark.parametrize("decode", [decode_shard_marker, decode_overlay_marker])
def test_a_record_is_not_a_marker(decode):
    with pytest.raises(RecordError, match=r"^here: not a version 1 (Shard|Overlay)Marker"):
        decode(encode(RECORD), "here")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["proposal_score", "caption_score", "box"])
def test_numbers_that_json_cannot_say_are_refused(number, field):
    value = (0.0, 0.0, number, 1.0) if field == "box" else number
    region = msgspec.structs.replace(RECORD.regions[1], **{field: value})
    record = msgspec.structs.replace(RECORD, regions=[RECORD.regions[0], region])
    with pytest.raises(ValueError, match=r"key 'a': regions\[1\]: a box or score is not finite"):
        encode(record)
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(msgspec.structs.replace(MARKER, provenance={"threshold": [number]}))


def test_counts_balance_when_everything_is_somewhere():
    counts = Counts(inputs=4, ok=1)
    counts.drop(Reason.SMALL)
    counts.drop(Reason.DECODE, 2)
    assert (counts.num_filtered, counts.num_dead, counts.balanced) == (1, 2, True)
    total = Counts()
    total.add(counts)
    total.add(counts)
    assert total == Counts(inputs=8, ok=2, filtered={"small": 2}, dead={"decode": 4})
    assert not Counts(inputs=1).balanced


def test_every_reason_has_a_status_and_a_meaning():
    assert set(STATUS_OF) == set(MEANING_OF) == set(Reason)
    assert set(STATUS_OF.values()) == {Status.FILTERED, Status.DEAD}
