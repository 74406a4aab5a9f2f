"""Sources that list their samples when planned (folders, COCO): what they read in the worker."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.read.base import ListedItem, SourcePart
from pipeline.read.captions import CaptionReader, notes
from pipeline.read.items import SampleError, failed_item, read_file, read_image_file
from pipeline.read.location import Location
from pipeline.read.record import SampleRecord
from pipeline.read.sample_json import decode_sample_json
from pipeline.sample import SourceItem
from schemas.text import counted

RecordReader = Callable[[bytes, str], SampleRecord]
"""What a file of one sample says, from its bytes and its name, for messages; raises SampleError."""

_AHEAD = 16
"""Remote files requested ahead, so that a request's latency is not paid once an image."""


def read_listed(
    part: SourcePart,
    location: Location,
    add_captions: Callable[[ListedItem, CaptionReader], None] | None = None,
    read_record: RecordReader = decode_sample_json,
) -> Iterator[SourceItem]:
    """Yield the part's items with their bytes, in order; those that were dropped when planned are not read.

    `add_captions` gives a reader what lies beside an item, before what the plan says; it may raise SampleError.
    `read_record` reads the file that an item names as its `record`.
    """

    def read(listed: ListedItem, index: int) -> SourceItem:
        return _read_item(listed, index, location=location, add_captions=add_captions, read_record=read_record)

    indexed = enumerate(part.items or (), start=part.start)
    if location.is_local:
        yield from (read(listed, index) for index, listed in indexed)
        return
    waiting: deque[Future[SourceItem]] = deque()
    with ThreadPoolExecutor(_AHEAD) as pool:
        for index, listed in indexed:
            waiting.append(pool.submit(read, listed, index))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_item(
    listed: ListedItem,
    index: int,
    *,
    location: Location,
    add_captions: Callable[[ListedItem, CaptionReader], None] | None,
    read_record: RecordReader,
) -> SourceItem:
    if listed.drop is not None:
        return SourceItem(key=listed.key, index=index, uri=listed.uri, data=None, drop=listed.drop)
    reader = CaptionReader()
    try:
        data = read_image_file(location, listed.uri)
        if add_captions is not None:
            add_captions(listed, reader)
        record = SampleRecord()
        if listed.record is not None:
            record = read_record(read_file(location, listed.record), listed.record)
        reader.add([*listed.captions, *record.captions], listed.uri)
        captions = reader.captions()
    except SampleError as error:
        return failed_item(listed.key, index, listed.uri, error)
    return SourceItem(
        key=listed.key,
        index=index,
        uri=listed.uri,
        data=data,
        captions=captions,
        url=listed.url or record.url,
        license=listed.license or record.license,
        note=notes(reader.note_text, listed.note, record.note, _passed_over(listed, record)),
        given=listed.regions or record.given,
        given_size=(listed.width, listed.height) if listed.width and listed.height else record.given_size,
        given_in_shares=listed.in_shares or record.in_shares,
    )


def _passed_over(listed: ListedItem, record: SampleRecord) -> str | None:
    """Say that regions of a file of the sample's own are not taken, where the plan has others."""
    both = listed.regions and record.given
    return f"{listed.record}: {counted(len(record.given), 'region')} not read, a table has others" if both else None
