import shutil
import subprocess
import tarfile
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_expander

from schemas.folder import DatasetError
from schemas.tar import BLOCK, END, RawSample, padding, read_samples, tar_member_header
from tests.shards import tar_member, tar_members, tiny_sample

SAMPLES = [tiny_sample("a"), tiny_sample("b-2", suffix="jpg", image_caption=None), tiny_sample("c", image_caption="")]
TAR = b"".join(map(tar_members, SAMPLES)) + END


def read(content: bytes) -> list[RawSample]:
    return list(read_samples(BytesIO(content), where="s.tar"))


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"), min_size=1, max_size=100),
    st.integers(0, 8**11 - 1),
)
@example("k" * 95 + ".json", 8**11 - 1)
@example("k", 0)
def test_headers_are_those_of_the_standard_library(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert tar_member_header(name, size) == info.tobuf(format=tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("name", ["", "k" * 96 + ".json", "é.json", "a\0b.json"])
def test_names_that_the_header_cannot_hold_are_refused(name):
    with pytest.raises(ValueError, match="a tar member's name has 1 to 100 ASCII characters"):
        tar_member_header(name, 1)


@pytest.mark.parametrize("size", [-1, 8**11])
def test_sizes_that_the_header_cannot_hold_are_refused(size):
    with pytest.raises(ValueError, match=r"a\.jpg: -?\d+ bytes"):
        tar_member_header("a.jpg", size)


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_padding_fills_blocks(size, expected):
    assert padding(size) == expected


def test_samples_come_back_with_their_offsets():
    raw = read(TAR)
    assert [(s.key, s.suffix, s.image) for s in raw] == [(s.record.key, s.suffix, s.image) for s in SAMPLES]
    assert [s.text for s in raw] == [b"two shapes", None, b""]
    for sample in raw:
        assert TAR[sample.offset : sample.offset + len(sample.image)] == sample.image
        start = sample.offset - BLOCK
        assert next(read_samples(BytesIO(TAR[start:]), where="s.tar", offset=start)) == sample


def test_tarfile_and_gnu_tar_read_the_layout(tmp_path):
    names = ["a.png", "a.txt", "a.json", "b-2.jpg", "b-2.json", "c.png", "c.txt", "c.json"]
    with tarfile.open(fileobj=BytesIO(TAR)) as tar:
        assert [(m.name, m.mode, m.mtime, m.uid, m.uname) for m in tar] == [(n, 0o644, 0, 0, "") for n in names]
    path = tmp_path / "s.tar"
    path.write_bytes(TAR)
    gnu_tar = shutil.which("tar")
    assert gnu_tar, "GNU tar belongs to every system that runs these tests"
    listed = subprocess.run([gnu_tar, "-tf", path], capture_output=True, text=True, check=True)
    assert (listed.stdout.split(), listed.stderr) == (names, "")


def test_webdataset_reads_the_layout():
    members = tar_file_expander([{"url": "s.tar", "stream": BytesIO(TAR)}])
    samples = list(group_by_keys(members))
    assert [sample["__key__"] for sample in samples] == ["a", "b-2", "c"]
    assert samples[1]["jpg"] == SAMPLES[1].image
    assert "txt" not in samples[1]


@given(st.integers(0, len(TAR) - BLOCK - 1))
def test_a_cut_tar_never_looks_whole(size):
    with pytest.raises(DatasetError, match=r"^s\.tar: "):
        read(TAR[:size])


def test_a_cut_member_is_named_with_its_place():
    with pytest.raises(DatasetError, match=r"s\.tar: key 'a': a\.png at byte 512: the tar ends \d+ bytes early"):
        read(TAR[:1000])


def test_damaged_bytes_are_named_with_their_place():
    with pytest.raises(DatasetError, match=r"s\.tar: byte 0: not a tar header \(bad checksum\)"):
        read(b"x" + TAR[1:])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a.gif", "a.json"], r"key 'a': found a\.gif at byte 0, where an image \(\.jpg, \.png, \.webp\) belongs"),
        (["a.txt", "a.jpg", "a.json"], r"key 'a': found a\.txt at byte 0, where an image"),
        (["a.jpg", "a.cls"], r"key 'a': found a\.cls at byte 512, where a\.json belongs"),
        (["a.jpg", "a.txt", "a.txt"], r"found a\.txt at byte 1024, where a\.json belongs"),
        (["a.jpg", "b.jpg", "a.json", "b.json"], r"key 'b': found b\.jpg at byte 512, where a\.json .*adjacent"),
        (["a.jpg", "a.txt"], r"key 'a': the tar ends before a\.json"),
        (["a.jpg", "a.json", "a.json"], r"found a\.json at byte 1024, where an image"),
        (["a.b.jpg", "a.json"], r"key 'a': found a\.b\.jpg at byte 0"),
        (["README"], r"key 'README': found README\. at byte 0"),
    ],
)
def test_another_order_is_refused(members, message):
    with pytest.raises(DatasetError, match=rf"^s\.tar: .*{message}"):
        read(b"".join(tar_member(name, b"") for name in members) + END)


def test_samples_packed_by_others_are_read():
    packed = BytesIO()
    with (
        tarfile.open(fileobj=BytesIO(TAR)) as ours,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for member in ours:
            content = BytesIO(TAR[member.offset_data : member.offset_data + member.size])
            member.mtime, member.uname, member.uid = 1_700_000_000, "somebody", 1000
            tar.addfile(member, content)
    assert read(packed.getvalue()) == read(TAR)


def test_only_regular_files_belong_in_a_shard():
    link = tarfile.TarInfo("a.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "b.jpg"
    with pytest.raises(DatasetError, match=r"s\.tar: byte 0: 'a\.jpg' is not a regular file"):
        read(link.tobuf(format=tarfile.USTAR_FORMAT) + END)
