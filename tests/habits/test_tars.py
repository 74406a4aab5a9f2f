"""Tars as they lie on disks: damaged, joined, written over, sparse, linked. Every byte of them is accounted for."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.read.compression import decompress
from pipeline.read.location import Location
from pipeline.read.tar_archives import Gap, walk
from pipeline.read.tar_headers import TarEntry
from pipeline.read.tars import open_tar
from schemas.reasons import Reason
from tests.builders import annotate, check_balance, image_rows, jpeg, read_markers, run
from tests.pipeline.read.source_builders import read_all, reasons

BLOCK = 512
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


class Member(NamedTuple):
    """A file of a made-up tar, and where it lies."""

    name: str
    start: int
    """Of its first header."""
    data: int
    end: int
    """Of its content, without padding."""


def picture(rng: random.Random, size: int) -> bytes:
    """Bytes that begin and end as a JPEG does, without a block of zeros."""
    return b"\xff\xd8" + rng.randbytes(size) + b"\xff\xd9"


def build(files: Sequence[tuple[str, bytes]], format_: int = tarfile.USTAR_FORMAT) -> tuple[bytes, list[Member]]:
    """A tar of the files, and where each lies."""
    buffer = io.BytesIO()
    members = []
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for name, data in files:
            start = tar.offset
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            data_at = tar.offset - -(-len(data) // BLOCK) * BLOCK
            members.append(Member(name, start, data_at, data_at + len(data)))
    return buffer.getvalue(), members


def photos(seed: int, count: int, format_: int = tarfile.USTAR_FORMAT, prefix: str = "") -> tuple[bytes, list[Member]]:
    """A tar of pictures with captions."""
    rng = random.Random(seed)
    files = []
    for number in range(count):
        files.append((f"{prefix}{number:04d}.jpg", picture(rng, rng.randint(300, 9000))))
        files.append((f"{prefix}{number:04d}.txt", b"caption %d" % number))
    return build(files, format_)


def walked(data: bytes) -> tuple[list[TarEntry], list[Gap]]:
    return walk(io.BytesIO(data))


def whole(entries: Sequence[TarEntry]) -> list[str]:
    return [entry.name for entry in entries if entry.problem is None]


def contents(data: bytes, entries: Sequence[TarEntry]) -> dict[str, bytes]:
    return {entry.name: data[entry.offset : entry.offset + entry.size] for entry in entries if entry.problem is None}


def check_holes(data: bytes, members: Sequence[Member], holes: Sequence[tuple[int, int]]) -> None:
    """Check what is read of a tar with holes: all that they spare, nothing invented, each lost header told."""
    entries, gaps = walked(data)
    touched = {m.name for m in members if any(start < m.end and stop > m.start for start, stop in holes)}
    found = contents(data, entries)
    assert {m.name for m in members} - touched <= found.keys(), "an undamaged file is missing"
    assert found.keys() <= {m.name for m in members}, "a file was invented"
    for m in members:
        if any(start < m.start + BLOCK and stop > m.start for start, stop in holes) and m.name not in found:
            assert any(gap.start <= m.start < gap.stop for gap in gaps if gap.reason is Reason.TRUNCATED), m


@pytest.mark.parametrize("fill", ["zeros", "noise"])
@pytest.mark.parametrize("seed", range(100))
def test_holes_cost_what_they_cover_and_nothing_else(seed, fill):
    rng = random.Random(seed)
    data, members = photos(seed, 60, rng.choice(FORMATS))
    damaged = bytearray(data)
    holes = []
    for _ in range(rng.choice([1, 1, 2, 4])):
        start = rng.randrange(members[-4].start)
        stop = start + rng.choice([600, 3000, 8192, 8192, 30_000])
        damaged[start:stop] = bytes(stop - start) if fill == "zeros" else rng.randbytes(stop - start)
        holes.append((start, stop))
    check_holes(bytes(damaged), members, holes)


@pytest.mark.parametrize("share", [0.1, 0.21, 0.5, 0.9])
@pytest.mark.parametrize("fill", ["zeros", "nothing", "noise"])
def test_a_tar_whose_rest_is_gone_says_so(share, fill):
    data, members = photos(1, 60)
    left = int(len(data) * share)
    rest = {"zeros": bytes, "nothing": lambda _: b"", "noise": random.Random(0).randbytes}[fill](len(data) - left)
    entries, gaps = walked(data[:left] + rest)
    expected = [m.name for m in members if m.end <= left]
    assert whole(entries)[: len(expected)] == expected
    # noise may be a file's own, and so may a zero
    assert len(whole(entries)) <= len(expected) + (fill == "noise" or members[len(expected)].end == left + 1)
    (gap,) = gaps
    assert gap.reason is Reason.TRUNCATED
    assert gap.stop == left + len(rest)
    assert gap.num_lost >= len(rest) - (10_000 if fill == "noise" else 0)


@pytest.mark.parametrize("missing", [0, 300, 1024, 5000])
@pytest.mark.parametrize("format_", FORMATS)
def test_joined_tars_are_read_one_after_the_other(format_, missing):
    first, ours = photos(2, 20, format_, "a")
    second, others = photos(3, 20, format_, "b")
    third, rest = photos(4, 5, format_, "c")
    kept = first[: len(first) - missing]  # some writers do not fill up their tars
    if missing > 1024:
        kept = first[: -(-members_end(ours) // BLOCK) * BLOCK + 1024]
    entries, gaps = walked(kept + second + third)
    assert whole(entries) == [m.name for m in (*ours, *others, *rest)]
    assert [gap for gap in gaps if gap.reason is Reason.STALE] == []
    if missing in (0, 5000):
        assert gaps == []


def members_end(members: Sequence[Member]) -> int:
    return members[-1].end


@pytest.mark.parametrize("cut", range(3000, 60_000, 4999))
def test_a_whole_tar_behind_a_cut_one_is_read(cut):
    first, ours = photos(2, 20, prefix="a")
    second, others = photos(3, 20, prefix="b")
    entries, gaps = walked(first[:cut] + second)
    names = whole(entries)
    assert [m.name for m in ours if m.end <= cut] == [name for name in names if name[0] == "a"]
    assert [m.name for m in others] == [name for name in names if name[0] == "b"]
    assert len(gaps) == 1 and gaps[0].num_lost > 0


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


def decompressed(packed: bytes) -> tuple[list[TarEntry], list[Gap]]:
    plain = io.BytesIO()
    return walk(plain, decompress(io.BytesIO(packed), plain))


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compressed_tars_are_read_joined_or_filled_up(name):
    compress = COMPRESSIONS[name]
    first, ours = photos(2, 20, prefix="a")
    second, others = photos(3, 20, prefix="b")
    assert whole(decompressed(compress(first))[0]) == [m.name for m in ours]
    for packed in (compress(first) + compress(second), compress(first) + compress(second) + bytes(700)):
        entries, gaps = decompressed(packed)
        assert whole(entries) == [m.name for m in (*ours, *others)]
        assert gaps == []


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_cut_compressed_tar_costs_its_rest_and_no_tar_behind_it(name, part):
    compress = COMPRESSIONS[name]
    first, ours = photos(2, 60, prefix="a")
    second, others = photos(3, 20, prefix="b")
    packed = compress(first)
    packed = packed[: int(len(packed) * part)]
    alone, gaps = decompressed(packed)
    assert len(gaps) == 1 and gaps[0].reason is Reason.TRUNCATED and gaps[0].num_lost > 0
    assert whole(alone) == [m.name for m in ours][: len(whole(alone))]
    if name in ("gz", "xz"):  # the others decompress large blocks, or nothing
        assert len(whole(alone)) > 60 * part
    entries, _ = decompressed(packed + compress(second))
    assert whole(entries) == [*whole(alone), *(m.name for m in others)]


@pytest.mark.parametrize("suffix", [".tar", *(f".tar.{name}" for name in COMPRESSIONS), ".tgz", ".txz", ".tzst"])
def test_compressed_tars_are_found_by_their_names(tmp_path, suffix):
    data, _ = photos(1, 3)
    for kind in COMPRESSIONS:
        if kind in suffix or suffix in (".tgz", ".tar"):
            (tmp_path / f"x{suffix}").write_bytes(data if suffix == ".tar" else COMPRESSIONS[kind](data))
            break
    assert [item.key for item in read_all(str(tmp_path))] == ["0000", "0001", "0002"]


@pytest.mark.parametrize("keep", [0, 1, 3, 17])
@pytest.mark.parametrize("how", ["mark", "record", "written over"])
def test_what_was_deleted_stays_deleted(keep, how):
    data, members = photos(5, 40)
    end = members[2 * keep].start
    if how == "written over":
        shorter, _ = photos(6, keep, prefix="new")
        written = shorter + data[len(shorter) :]
        expected = [f"new{n:04d}.{suffix}" for n in range(keep) for suffix in ("jpg", "txt")]
    else:
        stop = end + 1024 if how == "mark" else -(-(end + 1024) // 10_240) * 10_240
        written = data[:end] + bytes(stop - end) + data[stop:]
        expected = [m.name for m in members[: 2 * keep]]
    entries, gaps = walked(written)
    assert [entry.name for entry in entries] == expected
    assert [gap.reason for gap in gaps] == [Reason.STALE]
    assert [gap.num_lost for gap in gaps] == [0]


def test_a_tar_within_a_tar_is_a_file():
    inner, _ = photos(7, 8, prefix="inner")
    rng = random.Random(0)
    files = [("a.jpg", picture(rng, 3000)), ("b.tar", inner), ("c.jpg", picture(rng, 3000)), ("d.jpg", inner)]
    data, members = build(files)
    assert [entry.name for entry in walked(data)[0]] == ["a.jpg", "b.tar", "c.jpg", "d.jpg"]
    assert contents(data, walked(data)[0]) == dict(files)
    for fill in (bytes(BLOCK), b"?" * BLOCK):
        damaged = data[: members[1].start] + fill + data[members[1].data :]
        entries, gaps = walked(damaged)
        assert [entry.name for entry in entries] == ["a.jpg", "c.jpg", "d.jpg"]
        assert [(gap.start, gap.stop) for gap in gaps] == [(members[1].start, members[2].start)]


@pytest.mark.parametrize("writer", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["d/" + "n" * 120 + ".jpg", "été 図.jpg", "what?.jpg"])
def test_a_name_whose_header_is_lost_is_not_guessed(writer, name):
    rng = random.Random(0)
    data, members = build([(f"{n}{name}", picture(rng, 2000)) for n in range(4)], writer)
    start = members[2].start
    stop = members[2].data - BLOCK if members[2].data - start > BLOCK else start
    damaged = data[:start] + bytes(stop - start) + data[stop:]
    names = whole(walked(damaged)[0])
    assert set(names) <= {m.name for m in members}
    assert {members[n].name for n in (0, 1, 3)} <= set(names)


def test_a_question_mark_in_a_name_is_no_damage():
    rng = random.Random(0)
    data, members = build([(f"{n}?.jpg", picture(rng, 2000)) for n in range(5)])
    hole = (members[1].data + 5, members[3].start - 700)
    check_holes(data[: hole[0]] + bytes(hole[1] - hole[0]) + data[hole[1] :], members, [hole])


# Sparse files: the holes of a file are left out of the tar.

PIECES = [(0, 700), (8192, 4096), (20_480, 512), (40_000, 0)]


def sparse_content(seed: int) -> tuple[bytes, bytes]:
    """A file with holes as it is, and its pieces as they are stored."""
    rng = random.Random(seed)
    content = bytearray(40_000)
    for offset, size in PIECES:
        content[offset : offset + size] = rng.randbytes(size)
    return bytes(content), b"".join(content[offset : offset + size] for offset, size in PIECES)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def checked(block: bytes) -> bytes:
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def pax(records: Sequence[tuple[str, str]]) -> bytes:
    body = b""
    for key, value in records:
        text = f" {key}={value}\n".encode()
        length = next(n for n in range(len(text), len(text) + 10) if n == len(text) + len(str(n)))
        body += str(length).encode() + text
    return header("PaxHeaders/x", len(body), b"x") + padded(body)


def sparse_gnu(name: str, stored: bytes, pieces: Sequence[tuple[int, int]] = PIECES) -> bytes:
    fields = b"".join(b"%011o\0%011o\0" % piece for piece in pieces)
    block = header(name, len(stored), b"S")
    block = block[:386] + fields.ljust(97, b"\0") + b"%011o\0" % 40_000 + block[495:]
    return checked(block[:512]) + padded(stored)


def sparse_pax_0_0(name: str, stored: bytes) -> bytes:
    places = [
        (f"GNU.sparse.{key}", str(n)) for piece in PIECES for key, n in zip(("offset", "numbytes"), piece, strict=True)
    ]
    records = [("GNU.sparse.size", "40000"), ("GNU.sparse.numblocks", str(len(PIECES))), *places]
    return pax(records) + header(name, len(stored)) + padded(stored)


def sparse_pax_0_1(name: str, stored: bytes) -> bytes:
    places = ",".join(str(n) for piece in PIECES for n in piece)
    records = [("GNU.sparse.size", "40000"), ("GNU.sparse.name", name), ("GNU.sparse.map", places)]
    return pax(records) + header("GNUSparseFile.0/x", len(stored)) + padded(stored)


def sparse_pax_1_0(name: str, stored: bytes) -> bytes:
    places = "".join(f"{n}\n" for n in (len(PIECES), *(n for piece in PIECES for n in piece)))
    body = padded(places.encode()) + stored
    records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", name),
        ("GNU.sparse.realsize", "40000"),
    ]
    return pax(records) + header("GNUSparseFile.0/x", len(body)) + padded(body)


SPARSE = {"gnu": sparse_gnu, "pax 0.0": sparse_pax_0_0, "pax 0.1": sparse_pax_0_1, "pax 1.0": sparse_pax_1_0}


@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_file_has_its_holes_again(tmp_path, kind):
    first, stored_first = sparse_content(0)
    second, stored_second = sparse_content(1)
    plain = header("plain.jpg", 5) + padded(b"plain")
    data = SPARSE[kind]("a.jpg", stored_first) + plain + SPARSE[kind]("b.jpg", stored_second) + bytes(1024)
    (tmp_path / "x.tar").write_bytes(data)
    with tarfile.open(tmp_path / "x.tar") as tar:  # what was made up is what others read so
        assert tar.extractfile("b.jpg").read() == second
    with open_tar(Location.of(str(tmp_path / "x.tar")), "x.tar") as opened:
        assert opened.gaps == []
        assert {entry.name: opened.read(entry) for entry in opened.entries} == {
            "a.jpg": first, "plain.jpg": b"plain", "b.jpg": second,
        }  # fmt: skip


@pytest.mark.parametrize(
    "pieces", [[(8192, 4096), (0, 700)], [(0, 700), (300, 700)], [(0, 700), (39_999, 512)], [(0, 700), (50_000, 9)]]
)
def test_a_sparse_file_whose_pieces_cannot_be_dies(tmp_path, pieces):
    stored = random.Random(0).randbytes(sum(size for _, size in pieces))
    files = sparse_gnu("a.jpg", stored, pieces) + header("b.jpg", 5) + padded(b"plain")
    (tmp_path / "x.tar").write_bytes(files + bytes(1024))
    found = read_all(str(tmp_path))
    assert reasons(found) == [Reason.BAD_RECORD, None]
    assert [item.data for item in found] == [None, b"plain"]


# Links, names, old formats: what tarfile makes of them.


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_links_lead_to_files_over_other_links(kind, length):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("./d/./f0.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        for number in range(1, length + 1):
            target = f"f{number - 1}.jpg" if kind == tarfile.SYMTYPE else f"d/f{number - 1}.jpg"
            tar.addfile(link(f"d/f{number}.jpg", target, kind))
    entries, _ = walked(buffer.getvalue())
    assert contents(buffer.getvalue(), entries) == {f"d/f{n}.jpg": b"abc" for n in range(length + 1)}


@pytest.mark.parametrize("targets", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}, {"a": "gone"}])
@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_that_lead_nowhere_are_missing(targets, kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in targets.items():
            tar.addfile(link(f"{name}.jpg", f"{target}.jpg", kind))
    assert {entry.problem for entry in walked(buffer.getvalue())[0]} == {Reason.MISSING}


def test_a_hard_link_means_the_file_before_it_and_a_symbolic_one_the_last():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (("a.jpg", b"old"), ("hard.jpg", None), ("soft.jpg", None), ("a.jpg", b"new")):
            info = tarfile.TarInfo(name)
            if data is None:
                info = link(name, "a.jpg", tarfile.LNKTYPE if name == "hard.jpg" else tarfile.SYMTYPE)
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    found = contents(buffer.getvalue(), walked(buffer.getvalue())[0])
    assert (found["hard.jpg"], found["soft.jpg"]) == (b"old", b"new")


def old_v7(name: str, data: bytes) -> bytes:
    owner = b"000000 " + bytes(1)
    fields = name.encode().ljust(100, b"\0") + b"000644 " + bytes(1) + 2 * owner
    return checked((fields + b"%011o 00000000000 " % len(data)).ljust(BLOCK, b"\0")) + padded(data)


def test_tars_of_the_first_days_are_read_and_searched():
    rng = random.Random(0)
    files = {f"{n}.jpg": picture(rng, 2000) for n in range(6)}
    data = b"".join(old_v7(name, content) for name, content in files.items()) + bytes(1024)
    entries, gaps = walked(data)
    assert (contents(data, entries), gaps) == (files, [])
    one = len(old_v7("0.jpg", files["0.jpg"]))
    damaged = data[:one] + b"x" * 600 + data[one + 600 :]
    assert whole(walked(damaged)[0]) == ["0.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]


def test_sizes_of_any_writing_are_understood():
    data, size = b"abc" * 100, 300
    base256 = b"\x80" + size.to_bytes(11, "big")
    plain = header("a.jpg", size)
    written = checked(plain[:124] + base256 + plain[136:]) + padded(data)
    written += pax([("size", "300")]) + header("b.jpg", 0) + padded(data)
    entries, gaps = walked(written + bytes(1024))
    assert (contents(written, entries), gaps) == ({"a.jpg": data, "b.jpg": data}, [])


@pytest.mark.parametrize("size", [b"\xff" + b"\xff" * 11, b"\xff" * 10 + b"\xfe\x00", b"\x80" + b"\x7f" * 11])
def test_absurd_sizes_are_gaps_and_never_a_loop(size):
    plain = header("a.jpg", 300)
    rest = header("b.jpg", 5) + padded(b"plain") + bytes(1024)
    for kind in (b"0", b"x", b"L", b"g"):
        block = checked(plain[:124] + size + plain[136:156] + kind + plain[157:])
        entries, gaps = walked(block + padded(b"abc" * 100) + rest)
        assert gaps and gaps[0].start == 0
        assert whole(entries) == ["b.jpg"]


def test_names_that_are_not_utf8_are_names(tmp_path):
    block = checked(b"caf\xe9.jpg".ljust(100, b"\0") + header("x", 5)[100:])
    (tmp_path / "x.tar").write_bytes(block + padded(b"abcde") + bytes(1024))
    (item,) = read_all(str(tmp_path))
    assert item.data == b"abcde"
    assert item.key.startswith("caf")


def test_a_part_of_a_file_from_another_volume_is_no_file(tmp_path):
    (tmp_path / "x.tar").write_bytes(header("a.jpg", 5, b"M") + padded(b"abcde") + bytes(1024))
    assert reasons(read_all(str(tmp_path))) == [Reason.BAD_RECORD]


COMPONENT = st.text("ab./é?x ", min_size=1, max_size=8)
NAMES = st.one_of(
    st.builds("{}.{}".format, st.text("abcé", min_size=1, max_size=9), st.sampled_from(["jpg", "txt", "seg.png"])),
    st.builds("{}/{}.jpg".format, COMPONENT, COMPONENT),
    st.builds("{}.jpg".format, st.text("nü", min_size=90, max_size=280)),
)
LARGE = {
    "a tar": build([("inner.jpg", b"\xff\xd8 x")])[0],
    "zeros": bytes(1600),
    "an end": b"x" * BLOCK + bytes(BLOCK),
}
CONTENT = st.one_of(st.binary(max_size=600), st.integers(1, 9).map(bytes), st.sampled_from(sorted(LARGE)))
KINDS = st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@settings(max_examples=300)
@given(
    files=st.lists(st.tuples(NAMES, CONTENT, KINDS), max_size=8),
    format_=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    sparse=st.none() | st.sampled_from(sorted(SPARSE)),
    joined=st.booleans(),
)
def test_of_a_whole_tar_we_read_what_tarfile_reads(tmp_path_factory, files, format_, sparse, joined):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for number, (name, named, kind) in enumerate(files):
            content = LARGE[named] if isinstance(named, str) else named
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = files[number // 2][0]
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
        end = tar.offset
    data = buffer.getvalue()
    if sparse is not None:
        data = data[:end] + SPARSE[sparse]("sparse.jpg", sparse_content(0)[1])
        data += bytes(-(len(data) + 1024) % tarfile.RECORDSIZE + 1024)
    path = tmp_path_factory.mktemp("tars") / "x.tar"
    joined = joined and bool(files)
    path.write_bytes(data + (data if joined else b""))
    expected = []
    with tarfile.open(path, ignore_zeros=joined, encoding="utf-8", errors="backslashreplace") as tar:
        expected = [(info.offset_data, tar.extractfile(info).read()) for info in tar if info.isreg()]
        links = sum(info.islnk() or info.issym() for info in tar)
    with open_tar(Location.of(str(path)), "x.tar") as opened:
        assert opened.gaps == []
        at = {offset for offset, _ in expected}
        files_read = [
            (entry.offset, opened.read(entry))
            for entry in opened.entries
            if entry.problem is None and entry.header >= 0
        ]
        assert len(opened.entries) == len(expected) + links
        assert {pair[0] for pair in files_read} <= at
        assert set(expected) <= set(files_read)


# The whole way: rows, counts, what is said.

BOXES = ("000.json", b'{"regions": [{"box": [2, 2, 60, 50], "label": "cat"}]}')


def test_of_a_tar_with_a_hole_the_rows_name_what_is_lost(tmp_path):
    files = [(f"{n:03d}.{s}", jpeg(n) if s == "jpg" else b"a word") for n in range(12) for s in ("jpg", "txt")]
    data, members = build([*files, BOXES])
    hole = (members[6].data + 100, members[10].data + 7)
    (tmp_path / "x.tar").write_bytes(data[: hole[0]] + bytes(hole[1] - hole[0]) + data[hole[1] :])
    annotate(tmp_path / "x.tar", tmp_path / "out")
    check_balance(tmp_path / "out")
    rows = image_rows(tmp_path / "out")
    assert {key for key, row in rows.items() if row["status"] == "ok"} == {f"{n:03d}" for n in range(12)} - {
        "003",
        "004",
        "005",
    }
    (row,) = (row for row in rows.values() if row["status"] != "ok")
    assert (row["key"], row["reason"]) == ("x-truncated", "truncated")
    assert f"bytes {members[6].start:,} to {members[11].start:,}: 003.jpg is cut by zeros" in row["message"]
    (marker,) = read_markers(tmp_path / "out")
    assert marker.bytes_lost == members[11].start - members[6].start


@pytest.mark.parametrize("how", ["cut", "hole", "gone", "compressed"])
def test_each_sample_that_the_sidecar_knows_has_a_row(tmp_path, how):
    data, (_, *members) = build([BOXES, *((f"{n:03d}.jpg", jpeg(n)) for n in range(20))])
    start, stop = members[5].data + 9, members[9].data + 9
    source = tmp_path / "in"
    source.mkdir()
    if how == "cut":
        (source / "00000.tar").write_bytes(data[:start])
    elif how == "hole":
        (source / "00000.tar").write_bytes(data[:start] + bytes(stop - start) + data[stop:])
    elif how == "compressed":
        (source / "00000.tar.gz").write_bytes(gzip.compress(data)[: start // 2])
    rows = [{"key": f"{n:03d}", "status": "success"} for n in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), source / "00000.parquet")
    spec = f"{source}/{{00000..00000}}.tar" if how == "gone" else str(source)
    if how == "gone":
        (source / "00001.tar").write_bytes(build([("other.jpg", jpeg(0))])[0])
        spec = f"{source}/{{00000..00001}}.tar"
    outcome = run("annotate", spec, tmp_path / "out", "--proposer", "manual", "--captioner", "rule")
    assert outcome.code == 1, outcome  # too many dead, not a plan that does not add up
    check_balance(tmp_path / "out")
    found = image_rows(tmp_path / "out")
    assert {f"{n:03d}" for n in range(20)} <= found.keys()
    lost = {key for key, row in found.items() if row["status"] != "ok"}
    expected = {"cut": range(5, 20), "hole": range(5, 10), "gone": range(20)}
    if how in expected:
        assert lost == {f"{n:03d}" for n in expected[how]}
    assert {found[key]["reason"] for key in lost} == {"missing" if how == "gone" else "truncated"}


@pytest.mark.parametrize("repack", [False, True])
def test_gaps_are_counted_when_tars_are_walked(tmp_path, repack):
    data, members = photos(8, 12)
    for number, hole in enumerate([(members[4].data, members[8].data), (members[20].start + 3, members[20].start + 9)]):
        damaged = data[: hole[0]] + bytes(hole[1] - hole[0]) + data[hole[1] :]
        (tmp_path / f"{number}.tar").write_bytes(damaged)
    found = read_all(str(tmp_path), 5, repack)
    assert sum(item.drop is not None for item in found) == 2
    assert [item.key for item in found] == [item.key for item in read_all(str(tmp_path))]


def test_remote_tars_are_read_alike(tmp_path, monkeypatch):
    data, members = photos(9, 8)
    hole = (members[4].data, members[8].data)
    damaged = data[: hole[0]] + bytes(hole[1] - hole[0]) + data[hole[1] :]
    Path(tmp_path / "x.tar").write_bytes(damaged)
    local = read_all(str(tmp_path / "x.tar"))
    monkeypatch.setattr(Location, "is_local", False)
    assert read_all(str(tmp_path / "x.tar")) == local


@pytest.mark.parametrize("stray", [b"\n", b"\r\n", bytes(3) + b"x", b"x" * 511, b"x" * 512, b"x" * 1024, b"x" * 9999])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_whole_tar_behind_stray_bytes_is_read(format_, stray):
    first, ours = photos(2, 20, format_, "a")
    second, others = photos(3, 20, format_, "b")
    third, rest = photos(4, 5, format_, "c")
    entries, gaps = walked(first + stray + second + third)
    assert whole(entries) == [m.name for m in (*ours, *others, *rest)]
    (gap,) = gaps
    assert gap.start <= len(first) + 3 and gap.stop == len(first) + len(stray)  # zeros might have been a file's
    assert gap.reason is (Reason.TRUNCATED if stray.startswith(b"\0") else Reason.STALE)


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_cut_tar_behind_stray_bytes_is_read_as_far_as_it_goes(cut):
    first, ours = photos(2, 20, prefix="a")
    second, others = photos(3, 20, prefix="b")
    left = int(len(second) * cut)
    entries, gaps = walked(first + b"\n" + second[:left])
    assert whole(entries) == [m.name for m in ours] + [m.name for m in others if m.end <= left]
    assert [gap.reason for gap in gaps] == [Reason.STALE, Reason.TRUNCATED]


@pytest.mark.parametrize("size", [10**5, 10**9, 8**11 - 1])
def test_no_more_bytes_are_lost_than_there_are(size):
    data, members = photos(10, 6)
    damaged = bytearray(data)
    damaged[members[4].start : members[4].data] = header(members[4].name, size)
    entries, gaps = walked(bytes(damaged))
    assert {m.name for m in members} - {members[4].name, members[5].name} <= set(whole(entries))
    assert sum(gap.num_lost for gap in gaps) <= members[6].start - members[4].start


@pytest.mark.parametrize("size", [3000, 10**9])
def test_a_lone_cut_file_loses_what_there_is(size):
    data = header("a.jpg", size) + b"x" * 2000
    (gap,) = walked(data)[1]
    assert gap.num_lost == len(data)


@pytest.mark.parametrize("where", ["first", "between", "last", "all"])
@pytest.mark.parametrize("size", [0, 4, 70_000])
def test_what_zstandard_says_to_skip_is_skipped(tmp_path, where, size):
    first, ours = photos(11, 5, prefix="a")
    second, others = photos(12, 5, prefix="b")
    skip = b"\x5a\x2a\x4d\x18" + size.to_bytes(4, "little") + random.Random(0).randbytes(size)
    parts = {name: skip if where in (name, "all") else b"" for name in ("first", "between", "last")}
    pack = zstandard.ZstdCompressor().compress
    (tmp_path / "x.tar.zst").write_bytes(parts["first"] + pack(first) + parts["between"] + pack(second) + parts["last"])
    found = read_all(str(tmp_path / "x.tar.zst"))
    assert [item.drop for item in found] == [None] * 10
    assert [f"{item.key}.jpg" for item in found] == [m.name for m in (*ours, *others) if m.name.endswith(".jpg")]


@pytest.mark.parametrize("long_name", [False, True])
@pytest.mark.parametrize("folder_first", [False, True])
def test_names_in_incremental_tars_are_theirs(long_name, folder_first):
    buffer = io.BytesIO()
    names = [f"{'d' * 120 if long_name and number == 1 else 'd'}/{number}.jpg" for number in range(3)]
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        if folder_first:
            folder = tarfile.TarInfo("d/")
            folder.type = b"D"
            folder.size = 4
            tar.addfile(folder, io.BytesIO(b"Y0\0\0"))
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    data = bytearray(buffer.getvalue())
    for at in range(0, len(data), BLOCK):
        if data[at + 257 : at + 265] == b"ustar  \0":
            data[at + 345 : at + 369] = b"13727410000\x0013727410001\0"
            data[at : at + BLOCK] = checked(bytes(data[at : at + BLOCK]))
    entries, gaps = walked(bytes(data))
    assert [entry.name for entry in entries if entry.name.endswith(".jpg")] == names
    assert gaps == []
