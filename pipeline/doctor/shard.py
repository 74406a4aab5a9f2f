"""One shard from end to end: its files against the marker, its tar and table each by itself and against each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.doctor.findings import Findings, Level
from pipeline.doctor.members import HashedStream, Layout
from pipeline.doctor.rows import ShardRows, examine_rows
from pipeline.doctor.samples import SampleCheck
from schemas.folder import DatasetError, Folder
from schemas.hashes import sha256
from schemas.names import ShardName
from schemas.records import FileDigest, ShardMarker
from schemas.shards import check_not_repaired
from schemas.tar import BLOCK, END, Member, padding, read_members
from schemas.text import counted


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a shard came to."""

    shard: ShardName
    findings: Findings
    keys: tuple[str, ...] | None
    """Of the images that its table has in the tar; None where the table cannot be read."""


def examine_shard(
    folder: Folder,
    shard: ShardName,
    marker: ShardMarker,
    *,
    decode_images: bool,
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> ShardReport:
    """Read the shard once and report all that is wrong with it; `advance` is told the bytes of the tar as they pass."""
    findings = Findings(shard)
    rows = None
    try:
        (table,) = folder.read([shard.parquet])
        if table is None:
            _report_missing(shard.parquet, findings)
        else:
            found = FileDigest(sha256=sha256(table), size=len(table))
            _compare_digests(shard.parquet, found, marker.parquet, findings)
            rows = examine_rows(table, shard, marker, findings)
        _examine_tar(folder, shard, marker, rows, findings, decode_images=decode_images, advance=advance)
    except OSError as error:
        remedy = "find out why the store refuses it (permissions, network, disk), then run this again"
        findings.error("unreadable", f"the store cannot read {error.filename or shard}: {error}", remedy=remedy)
    if findings.num(Level.ERROR):
        try:
            check_not_repaired(folder, shard, marker)
        except DatasetError as error:  # what was found is of a tar and a table of two repairs
            findings = Findings(shard)
            findings.error("being-repaired", str(error), remedy="run this again once `fineclip retry` has ended")
            return ShardReport(shard=shard, findings=findings, keys=None)
    return ShardReport(shard=shard, findings=findings, keys=None if rows is None else tuple(rows.spans))


def _examine_tar(
    folder: Folder,
    shard: ShardName,
    marker: ShardMarker,
    rows: ShardRows | None,
    findings: Findings,
    *,
    decode_images: bool,
    advance: Callable[[int], None],
) -> None:
    if folder.size(shard.tar) is None:
        _report_missing(shard.tar, findings)
        return
    with folder.stream(shard.tar) as file:
        stream = HashedStream(file, advance)
        _examine_samples(stream, shard, marker, rows, findings, decode_images=decode_images)
        found = FileDigest(sha256=stream.drain(), size=stream.num_bytes)
    _compare_digests(shard.tar, found, marker.tar, findings)


def _examine_samples(
    stream: HashedStream,
    shard: ShardName,
    marker: ShardMarker,
    rows: ShardRows | None,
    findings: Findings,
    *,
    decode_images: bool,
) -> None:
    layout = Layout(shard, findings)
    check = SampleCheck(shard, rows, findings, decode_images=decode_images)
    walk = _Walk()
    try:
        for sample in layout.samples(walk.members(stream)):
            check.check(sample)
    except DatasetError as error:
        lost = f"; up to {counted(rows.num_beyond(walk.end), 'image')} cannot be reached" if rows else ""
        key = rows.key_at(walk.end) if rows else None  # the table knows which image is there
        findings.error("tar-cut", f"{error}{lost}", key=key)
        return
    layout.finish()
    for key in (key for key in (rows.spans if rows else ()) if key not in layout.keys):
        message = "the table has an ok row of the image, but the tar has no such sample"
        findings.error("table-differs", message, key=key)
    if len(layout.keys) != marker.images.ok:
        found = counted(len(layout.keys), "sample")
        findings.error("counts", f"{found} in the tar, where the marker says {marker.images.ok:,}")
    if stream.num_bytes - walk.end != BLOCK or stream.read(len(END)) != END[BLOCK:]:
        findings.error("tar-end", "the tar does not end in two blocks of zeros")


class _Walk:
    """The way through a tar, and how far its members are whole."""

    def __init__(self) -> None:
        self.end = 0
        """One beyond the last whole member, in bytes."""

    def members(self, stream: HashedStream) -> Iterator[Member]:
        """Yield the members. Raises DatasetError where there is no going on."""
        for member in read_members(stream, "the tar", 0):
            self.end = member.offset + len(member.data) + padding(len(member.data))
            yield member


def _report_missing(name: str, findings: Findings) -> None:
    findings.error("missing-file", f"{name} is not there, but its marker is")


def _compare_digests(name: str, found: FileDigest, expected: FileDigest, findings: Findings) -> None:
    if found.size != expected.size:
        findings.error("file-size", f"{name} has {found.size:,} bytes, its marker says {expected.size:,}")
    elif found.sha256 != expected.sha256:
        message = f"{name} has sha256 {found.sha256[:12]}..., its marker says {expected.sha256[:12]}..."
        findings.error("file-hash", message)
