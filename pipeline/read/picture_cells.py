"""Pictures in tables' cells as exporters write them: bytes, base64, paths, structs of bytes and path, lists of such."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipeline.read.formats import is_image
from pipeline.read.items import SampleError, check_not_empty, check_size
from pipeline.read.parquet_files import is_bytes, is_list, is_text, plain
from schemas.paths import as_path, is_url
from schemas.reasons import Reason
from schemas.text import mended

_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)
_BASE64_MAGIC = ("/9j/", "_9j_", "iVBORw0KGgo", "UklGR", "R0lGOD", "Qk", "SUkq", "TU0A", "AAAA")
"""How JPEG, PNG, WebP, GIF, BMP, TIFF, and AVIF, HEIC and JPEG 2000 begin in base64."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_SHORTEST = 64
"""Characters: shorter text is no picture, but may be the name of one."""
_PARTS = ("bytes", "data", "image", "path")


def may_hold_pictures(kind: pa.DataType) -> bool:
    """Return whether a column's type says that it holds pictures; text may too, which only its values tell."""
    if pa.types.is_struct(kind):
        return any(kind.field(place).name.lower() in _PARTS for place in range(kind.num_fields))
    if is_list(kind):
        return bool(pa.types.is_uint8(kind.value_type)) or may_hold_pictures(kind.value_type)
    return is_bytes(kind)


def is_text_or_lists(kind: pa.DataType) -> bool:
    """Return whether a column's type is text, or lists of it."""
    return is_text_or_lists(kind.value_type) if is_list(kind) else is_text(kind)


def is_picture_text(value: Any) -> bool:
    """Return whether a cell's text is a picture in base64, or may be the path of one: not an address, not prose."""
    if isinstance(value, list):
        return any(map(is_picture_text, value))
    return isinstance(value, str) and (_is_base64(value) or (not is_url(as_path(value)) and is_image(value)))


def read_picture(scalar: Any, read_path: Callable[[str], bytes], *, name: str) -> tuple[bytes, str | None]:
    """Return the bytes of a picture cell, and a note where it holds more than one picture.

    A cell without bytes is read from the path that it gives. Raises SampleError: no image, empty file, too large, or as
    `read_path` does.
    """
    if not scalar.is_valid:
        raise SampleError(Reason.NO_IMAGE, f"{name}: the image is null")
    kind = scalar.type
    if is_bytes(kind):
        return _checked(scalar.as_buffer(), name), None
    if pa.types.is_struct(kind):
        first = kind.get_field_index("bytes")  # as nearly all have it
        cell = scalar[first] if first >= 0 else None
        if cell is None or not cell.is_valid:
            cell = next((cell for cell in (scalar[place] for place in _parts(kind)) if cell.is_valid), None)
        if cell is None:
            raise SampleError(Reason.NO_IMAGE, f"{name}: the image is null")
        return read_picture(cell, read_path, name=name)
    if is_list(kind) and not pa.types.is_uint8(kind.value_type):
        cells = [cell for cell in scalar.values if cell.is_valid]
        if not cells:
            raise SampleError(Reason.NO_IMAGE, f"{name}: the list of images is empty")
        data, note = read_picture(cells[0], read_path, name=name)
        return data, note if len(cells) == 1 else f"{name}: the first of {len(cells)} images is taken"
    if is_list(kind):
        return _checked(pa.py_buffer(scalar.values.to_numpy(zero_copy_only=False).tobytes()), name), None
    value = plain(scalar) if is_text(kind) else None
    if isinstance(value, str) and value:
        return _of_text(value, read_path, name), None
    raise SampleError(Reason.NO_IMAGE, f"{name}: the image is null")


def is_empty(scalar: Any) -> bool:
    """Return whether a picture cell is null, or a struct of nulls."""
    if not scalar.is_valid or not pa.types.is_struct(scalar.type):
        return not scalar.is_valid
    return not any(scalar[place].is_valid for place in _parts(scalar.type))


def _parts(kind: pa.StructType) -> tuple[int, ...]:
    """Return the places of a struct's fields that may hold the picture, or say where it is."""
    places = {kind.field(place).name.lower(): place for place in range(kind.num_fields)}
    return tuple(places[part] for part in _PARTS if part in places)


def _checked(buffer: pa.Buffer, name: str) -> bytes:
    check_size(buffer.size, name)
    check_not_empty(buffer.size, name)
    return bytes(buffer.to_pybytes())


def _of_text(value: str, read_path: Callable[[str], bytes], name: str) -> bytes:
    if not _is_base64(value):
        if is_url(as_path(value)):  # not one of a local file
            address = f"{value} is an address, which is not fetched: download it first, with img2dataset for instance"
            raise SampleError(Reason.NO_IMAGE, f"{name}: {address}")
        if mended(value) != value:
            raise SampleError(Reason.NO_IMAGE, f"{name}: {value[:80]!r} is no path")
        return read_path(value)
    digits = "".join(_DATA_URI.sub("", value, count=1).split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SampleError(Reason.NO_IMAGE, f"{name}: base64 that cannot be read: {error}") from error
    return _checked(pa.py_buffer(data), name)


def _is_base64(value: str) -> bool:
    if _DATA_URI.match(value):
        return True
    return len(value) >= _SHORTEST and value.lstrip().startswith(_BASE64_MAGIC) and bool(_BASE64.fullmatch(value))
