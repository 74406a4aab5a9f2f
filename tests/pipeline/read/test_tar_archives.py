import io
import tarfile

import pytest

from pipeline.read.tar_archives import Gap, walk
from pipeline.read.tar_headers import TarEntry
from schemas.reasons import Reason
from tests.pipeline.read.source_builders import tar_bytes

MEMBERS = [("a.jpg", b"A" * 700), ("a.txt", b"one"), ("b.jpg", b"B" * 10)]
WHOLE = tar_bytes(MEMBERS)


def walked(data: bytes) -> tuple[list[TarEntry], list[Gap]]:
    return walk(io.BytesIO(data))


def test_members_are_found_where_their_bytes_are():
    entries, gaps = walked(WHOLE)
    assert gaps == []
    assert [(e.name, WHOLE[e.offset : e.offset + e.size]) for e in entries] == MEMBERS


@pytest.mark.parametrize(
    ("length", "whole", "cut"),
    [
        (0, [], []),
        (100, [], []),
        (512 + 300, [], ["a.jpg"]),
        (512 + 700, ["a.jpg"], []),  # inside the padding: the bytes are all there
        (512 + 1024, ["a.jpg"], []),  # between two members
        (512 + 1024 + 100, ["a.jpg"], []),  # inside a header
        (512 + 1024 + 512 + 1, ["a.jpg"], ["a.txt"]),
    ],
)
def test_a_cut_is_noticed_wherever_it_is(length, whole, cut):
    entries, gaps = walked(WHOLE[:length])
    assert [e.name for e in entries if e.problem is None] == whole
    assert [e.name for e in entries if e.problem is Reason.TRUNCATED] == cut
    (gap,) = gaps
    assert (gap.stop, gap.reason) == (length, Reason.TRUNCATED)
    assert all(name in gap.problem for name in cut)


def test_every_cut_before_the_end_mark_is_noticed_and_none_after_it():
    end = WHOLE.rindex(b"B") + 1
    mark = (end + 511) // 512 * 512
    for length in range(0, mark + 512, 37):
        assert len(walked(WHOLE[:length])[1]) == 1, length
    for length in range(mark + 512, len(WHOLE) + 1, 37):
        assert walked(WHOLE[:length])[1] == [], length


def test_damage_in_the_middle_is_a_gap_after_which_reading_goes_on():
    damaged = bytearray(WHOLE)
    damaged[512 + 1024 : 512 + 1024 + 512] = b"x" * 512
    entries, (gap,) = walked(bytes(damaged))
    assert [e.name for e in entries] == ["a.jpg", "b.jpg"]
    assert (gap.start, gap.stop, gap.num_lost) == (512 + 1024, 512 + 1024 + 1024, 1024)


def test_what_is_no_tar_is_one_gap():
    assert walked(b"<html>404</html>" * 100) == (
        [],
        [Gap(start=0, stop=1600, problem="no header where one belongs", num_lost=1600)],
    )


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_unicode_names_are_read(format_):
    name = "ü" * 200 + "/写真.jpg"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    (entry,), gaps = walked(buffer.getvalue())
    assert (entry.name, gaps) == (name, [])
    assert buffer.getvalue()[entry.offset :][:3] == b"abc"


def test_links_have_the_bytes_they_name():
    buffer = io.BytesIO(tar_bytes([("./d/a.jpg", b"abc")])[:1024])
    buffer.seek(1024)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target in (
            ("d/hard.jpg", tarfile.LNKTYPE, "./d/a.jpg"),
            ("d/soft.jpg", tarfile.SYMTYPE, "a.jpg"),
            ("d/lost.jpg", tarfile.SYMTYPE, "../elsewhere.jpg"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    first, hard, soft, lost = walked(buffer.getvalue())[0]
    assert first.name == "d/a.jpg"
    assert (hard.offset, hard.size) == (soft.offset, soft.size) == (first.offset, first.size)
    assert lost.problem is Reason.MISSING
