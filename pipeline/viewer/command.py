"""The subcommands `view` and `sheet`."""

import argparse
import errno
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from pipeline.viewer.safety import is_loopback
from pipeline.viewer.selection import parse
from pipeline.viewer.server import build
from pipeline.viewer.session import Session
from pipeline.viewer.sheet import make_sheet
from schemas.plain_flags import PlainParser
from schemas.store_errors import StorageError, check_here
from schemas.text import counted

DONE, UNREAD = 0, 1
_DATA_HELP = "a data set made by `fineclip annotate`: a folder, or a URL that fsspec reads"
_MAX_SHEET = 1000
_MAX_PORT = 65535
_HTML = (".html", ".htm")
_TOKEN_BYTES = 16


class _ListenError(ValueError):
    """The address cannot be listened on; the message says what to change."""

    exit_code = 2


def view_main(arguments: Sequence[str]) -> int:
    """Run `fineclip view` until it is interrupted, and return its exit code. Raises errors that carry theirs."""
    parser = _parser("view", "Show a data set's boxes and captions in the browser, straight from its shards.")
    parser.add_argument("--compare", metavar="OTHER", help="another data set, or the name of an overlay of DATA")
    parser.add_argument("--marks", metavar="FILE", help="where marks are saved (default: DATA/marks.jsonl, if local)")
    parser.add_argument(
        "--audit", metavar="OUT", help="folder of `fineclip audit DATA OUT`: adds a page with its filters as sliders"
    )
    parser.add_argument(
        "--features",
        metavar="NAME",
        help="overlay of `fineclip embed`: adds a map of the regions, and shows which are near each other",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any that is free)")
    parser.add_repeated("--host-name", "NAME", "a name of a portal or tunnel through which the page is opened")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= _MAX_PORT:
        parser.error(f"--port is {options.port}, but ports are from 1 to {_MAX_PORT} (0 takes any that is free)")
    if options.marks is not None:
        check_here(options.marks, "--marks")
    with _store_errors():
        _view(options)
    return DONE


def sheet_main(arguments: Sequence[str]) -> int:
    """Run `fineclip sheet` and return its exit code. Raises errors that carry theirs."""
    parser = _parser(
        "sheet",
        "Write images with their boxes and captions into one HTML file. Exit code 1: one could not be read.",
    )
    parser.add_argument("output", metavar="OUT.html", help="the file to write")
    parser.add_argument("--where", default="", metavar="QUERY", help="what to show: the part of the page's URL after ?")
    parser.add_argument("--limit", type=int, default=24, help="number of images (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random sample, unless QUERY sorts (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if not 1 <= options.limit <= _MAX_SHEET:
        parser.error(f"--limit is from 1 to {_MAX_SHEET}")
    check_here(options.output, "OUT.html")
    output = Path(options.output)
    if output.suffix.lower() not in _HTML:
        parser.error(f"{output}: a sheet is an HTML file; name it {output.with_suffix('.html')}")
    if not output.parent.is_dir():
        parser.error(f"{output}: there is no folder {output.parent}; make it, or write elsewhere")
    selection = parse(urlsplit(options.where).query if "://" in options.where else options.where)
    with _store_errors():
        session = Session(options.data, overlays=options.overlay, filters=options.filter)
        page, unread = make_sheet(session.tables[0], selection, limit=options.limit, seed=options.seed)
        output.write_bytes(page)
        session.close()
    sys.stdout.write(f"Sheet: {output} ({len(page) / 2**20:.1f} MiB)\n")
    if unread:
        _say(f"{counted(len(unread), 'image')} on it could not be read: {unread[0]}; `fineclip doctor` says more")
        return UNREAD
    return DONE


def _parser(name: str, description: str) -> PlainParser:
    parser = PlainParser(f"fineclip {name}", description)
    parser.add_argument("data", metavar="DATA", help=_DATA_HELP)
    parser.add_repeated("--overlay", "NAME", "overlay whose columns replace DATA's own")
    parser.add_repeated("--filter", "FILE", "filter list of what to leave out")
    return parser


def _view(options: argparse.Namespace) -> None:
    session = Session(
        options.data,
        other=options.compare,
        overlays=options.overlay,
        filters=options.filter,
        marks=options.marks,
        audit=options.audit,
        features=options.features,
    )
    with _listener(options.host, options.port) as listener:
        shown = f"[{options.host}]" if ":" in options.host else options.host
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        url = f"http://{shown}:{listener.getsockname()[1]}/{token}/"
        for table in session.tables:
            for problem in table.source.problems:
                _say(problem.message)
        if not is_loopback(options.host):
            _say("whoever has this address sees the data and can mark it; the connection is not encrypted")
        for name in options.host_name:
            _say(f"through {name}: open its address for port {listener.getsockname()[1]}, followed by {token}/")
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        if sys.stderr.isatty():
            _say("open this address in a browser; Ctrl-C ends the viewer")
        if options.open:
            webbrowser.open(url)
        config = uvicorn.Config(
            build(session, host=options.host, token=token, host_names=options.host_name),
            lifespan="off",
            ws="none",
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        with suppress(KeyboardInterrupt):  # uvicorn hands on the signal that it has ended on
            uvicorn.Server(config).run(sockets=[listener])
    session.close()


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address. Raises _ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    remedies = {
        errno.EADDRINUSE: "another program has the port: leave --port out to take any that is free",
        errno.EACCES: "ports below 1024 need special rights: leave --port out to take any that is free",
    }
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        remedy = remedies.get(error.errno or 0, "give as --host an address of this machine")
        # Python's own text repeats the address; a name that cannot be looked up has a negative number
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else "no such host"
        raise _ListenError(f"cannot listen on {host}, port {port} ({why}): {remedy}") from error


def _say(message: str) -> None:
    sys.stderr.write(f"fineclip: {message}\n")


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{error}; check the address, the network and your permissions, then run this again"
        ) from error
