"""The images of whole tars, read one tar after the other by webdataset, and handed out in the order of the steps.

A tar is asked for once, and read as it comes; what came before its turn is held, `lanes.MIXED` images at most. An image
that the tar does not give, because it ends early or is damaged, cannot be used: the run counts it, as others.
"""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from webdataset.tariterators import group_by_keys, tar_file_expander

from schemas.dataset import Dataset, DatasetError
from schemas.names import IMAGE_SUFFIXES
from trainer.data.decode import UnusableSampleError
from trainer.data.index import SampleIndex

_Found = bytes | UnusableSampleError


class TarReader:
    """A lane's images from some place on."""

    def __init__(self, dataset: Dataset, index: SampleIndex, *, shards: Sequence[int], images: Iterable[int]) -> None:
        """`images` are the rows that will be asked for; a shard that has none of them is not opened."""
        self._dataset, self._index = dataset, index
        self._wanted = set(images)
        self._held: dict[int, _Found] = {}
        self._arriving = (found for shard in shards for found in self._read(shard))

    def read(self, image: int) -> bytes:
        """Return an image's stored bytes, once. Raises UnusableSampleError for what its tar does not give."""
        while image not in self._held:
            row, found = next(self._arriving)
            self._held[row] = found
        content = self._held.pop(image)
        if isinstance(content, UnusableSampleError):
            raise content
        return content

    def _read(self, shard: int) -> Iterator[tuple[int, _Found]]:
        """Yield what is wanted of a shard: each row once, in the tar's order, then those that did not come."""
        rows = self._index.rows_of(shard)
        keys = self._index.keys.slice(rows.start, len(rows)).to_pylist()
        left = {key: row for key, row in zip(keys, rows, strict=True) if row in self._wanted}
        if not left:
            return
        name = self._index.shards[shard]
        address = self._dataset.tar_address(name)
        last: str | None = None
        why = f"{address}: the tar ends before it"
        try:
            with self._dataset.open_tar(name) as file:
                for last, content in images_of_tar(file):
                    if last in left:
                        row = left.pop(last)
                        yield row, self._checked(content, row, address)
                    if not left:
                        return
        except DatasetError as error:
            why = str(error)
        except FileNotFoundError:
            why = f"{address}: is there no more"
        except (tarfile.TarError, EOFError, ValueError) as error:
            why = f"{address}: damaged {f'after key {last}' if last else 'where it begins'} ({error.args[0]})"
        remedy = "" if why.endswith("again") else "; fetch the tar again, or write the shard again"
        yield from ((row, UnusableSampleError(why + remedy)) for row in left.values())

    def _checked(self, content: bytes, row: int, address: str) -> _Found:
        expected = int(self._index.tar_size[row])
        if len(content) == expected:
            return content
        return UnusableSampleError(f"{address}: has {len(content)} bytes of it where the table says {expected}")


def images_of_tar(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield key and stored bytes of each image of a tar.

    Raises TarError, EOFError or ValueError where it is damaged, and the store's errors as they were.
    """
    source = _Source(file)
    members = tar_file_expander(iter([{"url": "", "stream": source}]), select_files=_is_image)
    try:
        for sample in group_by_keys(members):
            yield sample["__key__"], next(sample[suffix] for suffix in IMAGE_SUFFIXES if suffix in sample)
    except OSError as error:
        error.args = source.told
        raise


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2] in IMAGE_SUFFIXES


class _Source:
    """A file that remembers what its errors say: webdataset adds to it, and the sentence would be lost."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.told: tuple[object, ...] = ()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.told = error.args
            raise
