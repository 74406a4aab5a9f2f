import io
import tarfile

import pytest

from pipeline.read.tars import walk
from schemas.reasons import Reason
from tests.pipeline.read.source_builders import tar_bytes

MEMBERS = [("a.jpg", b"A" * 700), ("a.txt", b"one"), ("b.jpg", b"B" * 10)]
WHOLE = tar_bytes(MEMBERS)


def walked(data: bytes):
    return walk(io.BytesIO(data))


def test_members_are_found_where_their_bytes_are():
    members, problem = walked(WHOLE)
    assert problem is None
    assert [(m.name, WHOLE[m.offset : m.offset + m.size]) for m in members] == MEMBERS


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
        (4 * 1024, ["a.jpg", "a.txt", "b.jpg"], None),
    ],
)
def test_a_cut_is_noticed_wherever_it_is(length, whole, cut):
    members, problem = walked(WHOLE[:length])
    assert [m.name for m in members if m.problem is None] == whole
    if cut is not None:
        assert problem
        assert [m.name for m in members if m.problem is Reason.TRUNCATED] == cut


def test_every_cut_before_the_end_mark_is_noticed():
    end = WHOLE.rindex(b"B") + 1
    mark = (end + 511) // 512 * 512
    for length in range(0, mark + 512, 37):
        assert walked(WHOLE[:length])[1], length
    assert walked(WHOLE[: mark + 512])[1] is None


def test_damage_in_the_middle_is_not_taken_for_the_end():
    damaged = bytearray(WHOLE)
    damaged[512 + 1024 : 512 + 1024 + 512] = b"x" * 512
    members, problem = walked(bytes(damaged))
    assert [m.name for m in members] == ["a.jpg"]
    assert problem == f"byte {512 + 1024} is no tar header"


def test_what_is_no_tar_is_called_so():
    assert walked(b"<html>404</html>" * 100) == ([], "the tar is cut or is none: invalid header")


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_unicode_names_are_read(format_):
    name = "ü" * 200 + "/写真.jpg"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    (member,), problem = walked(buffer.getvalue())
    assert (member.name, problem) == (name, None)
    assert buffer.getvalue()[member.offset :][:3] == b"abc"


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
