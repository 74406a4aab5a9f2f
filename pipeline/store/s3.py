"""What S3 can do and fsspec does not ask for: a listing from a name on, and a copy without a look before it."""

import errno
from typing import Any


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
