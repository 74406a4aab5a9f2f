import threading
import time

import numpy as np
import pytest

from pipeline.read import read
from pipeline.read.exclusions import ReadSettings
from pipeline.read.read import decoded_ahead
from pipeline.sample import DecodedImage, Sample, SourceItem
from tests.builders import image_bytes

SIZES = [(64, 48), (300, 200), (8, 8), (500, 400), (300, 300), (16, 900), (640, 480), (1, 1)] * 3


def samples(sizes=SIZES) -> list[Sample]:
    images = {size: image_bytes("PNG", width=size[0], height=size[1]) for size in set(sizes)}
    items = (SourceItem(key=f"{n}", index=n, uri=f"{n}", data=images[size]) for n, size in enumerate(sizes))
    return [Sample(item=item) for item in items]


@pytest.mark.parametrize("limit", [1, 700_000, 2**40])
@pytest.mark.parametrize("num_threads", [1, 3, 8])
def test_what_is_decoded_does_not_depend_on_what_may_be_decoded_ahead(monkeypatch, limit, num_threads):
    monkeypatch.setattr(read, "_MAX_BYTES_AHEAD", limit)
    found = list(decoded_ahead(samples(), ReadSettings(), num_threads=num_threads))
    assert [sample.key for sample in found] == [str(n) for n in range(len(SIZES))]
    assert [(sample.image.width, sample.image.height) for sample in found] == SIZES


@pytest.mark.parametrize("limit", [300_000, 1_000_000])
def test_pixels_ahead_stay_within_their_bytes_but_for_the_first(monkeypatch, limit):
    monkeypatch.setattr(read, "_MAX_BYTES_AHEAD", limit)
    held, peak, lock = {}, 0, threading.Lock()
    decode = read.decode

    def watched(item, settings, admit):
        def entered(num_pixels: int) -> None:
            nonlocal peak
            admit(num_pixels)
            with lock:
                held[item.index] = num_pixels * 7
                peak = max(peak, sum(held.values()))

        time.sleep(0.002)
        image = decode(item, settings, entered)
        assert isinstance(image, DecodedImage)
        with lock:
            held[item.index] = image.pixels.nbytes
        return image

    monkeypatch.setattr(read, "decode", watched)
    for sample in decoded_ahead(samples(), ReadSettings(), num_threads=8):
        with lock:
            del held[sample.item.index]
    assert peak <= limit + 7 * max(width * height for width, height in SIZES)
    assert peak > limit / 2  # it is decoded ahead


def test_a_reader_that_is_left_early_ends_its_threads(monkeypatch):
    monkeypatch.setattr(read, "_MAX_BYTES_AHEAD", 1)
    before = threading.active_count()
    stream = decoded_ahead(samples(), ReadSettings(), num_threads=4)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_large_files_do_not_wait_by_the_dozen(monkeypatch):
    monkeypatch.setattr(read, "_MAX_BYTES_AHEAD", 100_000)
    taken = 0

    def counted():
        nonlocal taken
        for sample in samples([(300, 200)] * 30):  # noise: 180 KB each
            taken += 1
            yield sample

    for number, sample in enumerate(decoded_ahead(counted(), ReadSettings(), num_threads=4)):
        assert isinstance(sample.image, DecodedImage) and np.any(sample.image.pixels)
        assert taken <= number + 2
