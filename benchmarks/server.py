"""Captions from a server of chat completions: requests in a sliding window, against barriers and against a bare client.

    python -m benchmarks.server [--delays 0 0.4] [--crops 1200] [--runs 3] [--memory-crops 0] [--cpu-time]

A stub in a process of its own takes each request whole and answers it after a delay, with a caption of its bytes. The
captioner gets crops of 40 to 200 pixels a side in batches, as the job gives them: the next batch is prepared while the
answers of the one before it are waited for. `before` is the way until then, 16 requests at once with a barrier every 64
crops. The bare client sends bodies that were made beforehand, on as many threads as the window is wide: what the
machine's own two sides of HTTP leave for us. `--memory-crops` sends so many more, and tells the memory held meanwhile.

Needs openai, NumPy, Pillow, msgspec and OpenCV.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import httpx2
import numpy as np

from benchmarks.report import Row, measure, report
from pipeline.caption.openai import Openai, OpenaiConfig
from pipeline.models.batches import Batcher
from pipeline.sample import Caption, Crop
from schemas.reasons import Stage

_GOAL_PER_S = 300.0
_SIDES = (40, 200)
_WINDOW = 256
_NOTED_CROPS = 10_000


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.4], help="seconds until the stub answers")
    parser.add_argument("--crops", type=int, default=1200, help="a round")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--memory-crops", type=int, default=0, help="sent once more, in the window")
    parser.add_argument("--cpu-time", action="store_true", help="of this process alone, beside other work")
    options = parser.parse_args()
    crops = [_crop(number) for number in range(options.crops)]
    for delay in options.delays:
        ours, theirs = multiprocessing.Pipe()
        stub = multiprocessing.get_context("spawn").Process(target=_serve, args=(delay, theirs), daemon=True)
        stub.start()
        try:
            _compare(f"http://127.0.0.1:{ours.recv()}/v1", delay, crops, options)
        finally:
            stub.terminate()
            stub.join()


def _compare(url: str, delay: float, crops: list[Crop], options: argparse.Namespace) -> None:
    window = Openai(OpenaiConfig(url=url, concurrency=_WINDOW))
    before = Openai(OpenaiConfig(url=url, concurrency=16, batch_size=64))
    bodies = [_body(window, crop) for crop in crops]
    ways: dict[str, Callable[[], object]] = {
        "window": lambda: _caption(window, iter(crops), ahead=True),
        "before": lambda: _caption(before, iter(crops), ahead=False),
        "bare client": lambda: _send(url, bodies),
    }
    seconds = measure(ways, options.runs, clock=time.process_time if options.cpu_time else time.perf_counter)
    rows = [
        Row(
            name=f"{name}, answers after {delay:g} s",
            seconds=seconds[name],
            against=None if name == "bare client" else seconds["bare client"],
            items=len(crops),
            rate_goal=_GOAL_PER_S if name == "window" and not options.cpu_time else None,
        )
        for name in ways
    ]
    extra = {}
    if options.memory_crops:
        held: dict[int, float] = {}
        _caption(window, _noting(held, options.memory_crops), ahead=True)
        extra["memory held MiB, by crops asked about"] = held
    clock = ", CPU seconds of the client" if options.cpu_time else ""
    report(f"server, answers after {delay:g} s{clock}", rows, extra)


def _crop(number: int) -> Crop:
    rng = np.random.default_rng(number)
    height, width = (int(side) for side in rng.integers(*_SIDES, 2))
    cells = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    pixels = cells.repeat(height // 5 + 1, axis=0).repeat(width // 5 + 1, axis=1)[:height, :width].copy()
    box = (0.0, 0.0, float(width), float(height))
    return Crop(region_id=f"{number:016x}", pixels=pixels, box=box, image_width=width, image_height=height, label=None)


def _noting(held: dict[int, float], count: int) -> Iterator[Crop]:
    """Yield so many crops; note the memory of the process, in MiB, at the first, at every 10,000th and at the last."""
    pages = os.sysconf("SC_PAGE_SIZE") / 2**20
    for number in range(count):
        if number % _NOTED_CROPS == 0 or number == count - 1:
            held[number] = round(int(Path("/proc/self/statm").read_text().split()[1]) * pages, 1)
        yield _crop(number)


def _caption(captioner: Openai, crops: Iterator[Crop], *, ahead: bool) -> int:
    """Caption as `pipeline.annotate` does; return how many crops there were."""

    def asked(batch: list[Crop]) -> tuple[list[Crop], list[str | None]]:
        return batch, [captioner.prompt] * len(batch)

    batcher: Batcher[Crop, Caption] = Batcher(
        captioner.generate if ahead else lambda batch: captioner.caption(*asked(batch)),
        prepare=(lambda batch: captioner.prepare(*asked([*batch]))) if ahead else None,
        name="openai",
        stage=Stage.CAPTION,
        batch_size=captioner.batch_size,
    )
    count = 0
    for _, outcome in batcher.run(crops):
        assert isinstance(outcome, Caption), outcome
        count += 1
    return count


def _body(captioner: Openai, crop: Crop) -> bytes:
    image = {"type": "image_url", "image_url": {"url": captioner._data_url(crop.pixels)}}
    text = {"type": "text", "text": captioner.prompt}
    return json.dumps(
        {
            "model": captioner.config.model,
            "messages": [{"role": "user", "content": [image, text]}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": 64,
        }
    ).encode()


def _send(url: str, bodies: list[bytes]) -> None:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=_WINDOW)
    headers = {"Content-Type": "application/json"}
    with httpx2.Client(limits=limits, trust_env=False, timeout=60) as client, ThreadPoolExecutor(_WINDOW) as pool:

        def send(body: bytes) -> str:
            answer = client.post(f"{url}/chat/completions", content=body, headers=headers)
            return str(answer.json()["choices"][0]["message"]["content"])

        assert len([*pool.map(send, bodies)]) == len(bodies)


def _serve(delay: float, pipe: Connection) -> None:
    """Answer requests until the process is ended; sends the port down the pipe."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            length = next((int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length")), 0)
            digest = hashlib.blake2b(await reader.readexactly(length), digest_size=4).hexdigest()
            if delay:
                await asyncio.sleep(delay)
            message = {"role": "assistant", "content": f"A picture with the number {digest}."}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice]}
            data = json.dumps(body).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data))
            writer.write(data)
            await writer.drain()
        writer.close()

    async def listen() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**22, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(listen())


async def _head(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the lines of a request's head; none where the client has gone."""
    try:
        return (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    except asyncio.IncompleteReadError:
        return []


if __name__ == "__main__":
    main()
