"""What S3 can do and fsspec does not ask for.

A listing from a name on, a copy without a look before it, ranges that are of one version of an object, and deletions of
many that tell which failed.
"""

import errno
from collections.abc import Sequence
from typing import Any, NamedTuple

from fsspec.asyn import sync

_MOST_DELETED = 1000
"""Objects that a request may delete."""


def list_after(fs: Any, folder: str, after: str) -> dict[str, int]:
    """Return the sizes in bytes of the objects right in `folder` whose names come after `after`, by name."""
    bucket, key, _ = fs.split_path(folder)
    prefix = f"{key}/" if key else ""
    asked = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
    if after:
        asked["StartAfter"] = prefix + after
    found: dict[str, int] = {}
    while True:
        page = fs.call_s3("list_objects_v2", **asked)
        found |= {entry["Key"][len(prefix) :]: entry["Size"] for entry in page.get("Contents", [])}
        if not page.get("IsTruncated"):
            found.pop("", None)  # an empty object that stands for the folder
            return found
        asked["ContinuationToken"] = page["NextContinuationToken"]


def copy(fs: Any, path: str, new_path: str) -> None:
    """Copy an object. Raises FileNotFoundError when it is not there."""
    (bucket, key, _), (new_bucket, new_key, _) = fs.split_path(path), fs.split_path(new_path)
    try:
        fs.call_s3("copy_object", Bucket=new_bucket, Key=new_key, CopySource={"Bucket": bucket, "Key": key})
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fs.cp_file(path, new_path)  # larger than 5 GB: in parts


def remove(fs: Any, paths: Sequence[str]) -> None:
    """Delete objects of one bucket, a thousand a request; one that is not there is no error.

    Raises PermissionError or OSError where the store answers that it kept one: s3fs does not look.
    """
    bucket, _, _ = fs.split_path(paths[0])
    for start in range(0, len(paths), _MOST_DELETED):
        keys = [{"Key": fs.split_path(path)[1]} for path in paths[start : start + _MOST_DELETED]]
        answer = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        for error in answer.get("Errors", []):
            kind, code = (PermissionError, errno.EACCES) if error["Code"] == "AccessDenied" else (OSError, errno.EIO)
            raise kind(code, f"{error['Key']} was not deleted: {error['Code']} {error.get('Message', '')}".strip())


class Range(NamedTuple):
    """A part of an object."""

    data: bytes
    etag: str
    """Names the version."""
    total: int
    """Bytes of the whole object."""


def read_range(fs: Any, path: str, start: int, size: int, *, etag: str | None = None) -> Range:
    """Return up to `size` bytes from `start` on, of the version `etag`: one request.

    Raises FileNotFoundError, and OSError where there is another version now.
    """
    try:
        return fs.wait_for(lambda: sync(fs.loop, _read_range, fs, path, start, size, etag), path)  # type: ignore[no-any-return]
    except OSError as error:
        if start or error.errno != errno.EINVAL or fs.info(path)["size"]:
            raise
        return Range(b"", "", 0)  # an empty object has no range


async def _read_range(fs: Any, path: str, start: int, size: int, etag: str | None) -> Range:
    bucket, key, version = fs.split_path(path)
    asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{start + size - 1}"}
    asked |= {"VersionId": version} if version else {}
    asked |= {"IfMatch": etag} if etag else {}
    answer = await fs._call_s3("get_object", **asked)
    async with answer["Body"] as body:
        data = await body.read()
    return Range(data, answer["ETag"], int(answer["ContentRange"].rpartition("/")[2]))
