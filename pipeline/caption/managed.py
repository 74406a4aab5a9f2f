"""A server of one worker's own: started from any environment, watched, started again where it dies, ended with us.

vllm serve MODEL --port {port}   --supervise.py, in a session of its own--> the server, its log in a file
                the worker holds the supervisor's standard input: closed, however the worker ends, it ends the server
"""

import contextlib
import json
import logging
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline.caption import supervise
from pipeline.caption.secrets import redacted, without_secrets
from pipeline.errors import WorkError
from pipeline.models.device import Device, gpu_id

PORT = "{port}"
"""Where the command has the port that was chosen for it."""
_GRACE_S = 20.0
"""Seconds that a server has to end on SIGTERM."""
_POLL_S = 0.2
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would take a server of another environment into ours."""
_LEAST_PORT, _OUTGOING = 10_000, (32_768, 60_999)
"""Ports below the first have their programs; the others are Linux's own range, where it does not tell."""
_TAKEN = re.compile(r"(?i)EADDRINUSE|address (?:is )?already in use|address in use|port \S* ?(?:is )?already in use")
_MOST_PORTS = 3
"""Times that another program may be quicker to take the port."""
_TAIL_BYTES, _TAIL_LINES = 4096, 6
_SIGNALLED = 128
"""What a signal's number is added to, in an exit code."""
_log = logging.getLogger(__name__)


class ManagedServer:
    """A server process on a free port of this machine's loopback. Ends with this object, or with the process."""

    def __init__(self, command: str, *, device: Device) -> None:
        """Start the command, `{port}` in it replaced; no shell reads it.

        On a machine with GPUs it sees one, this worker's own. Raises WorkError where there is no such program.
        """
        self.command = command
        self._environment = _environment(device)
        self._port = _free_port()
        self._num_ports, self._is_awaited = 1, True
        self.log = _log_file(self._port)
        """What the server prints, over all its starts; kept."""
        program = words_of(command)[0]
        if shutil.which(program) is None:
            raise WorkError(
                f"--caption.serve: there is no program {program!r} on the PATH of {socket.gethostname()}; "
                "name it with its path, such as /opt/vllm/bin/vllm"
            )
        self._running = _Running()
        self._has_answered = False
        self._num_restarts = self._num_told = 0
        self._failure: str | None = None
        self._start()
        self.end = weakref.finalize(self, self._running.end)
        """Ends the server, and waits for that; called once where nobody calls it."""
        threading.Thread(target=_watch, args=(weakref.ref(self),), name="caption server", daemon=True).start()

    @property
    def url(self) -> str:
        """The server's base URL, which stays once `wait_until_there` has returned."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int:
        """The supervisor's process id; the server is its child."""
        assert self._running.process is not None
        return self._running.process.pid

    def wait_until_there(self, start_s: float) -> None:
        """Return when something listens on the port; raise WorkError where the server ends before, or `start_s` do."""
        began = time.monotonic()
        while not _listens(self._port):
            self.check()
            if time.monotonic() - began > start_s:
                raise WorkError(
                    f"--caption.serve: nothing listens on the server's port after {start_s:g} s (--caption.start-s); "
                    f"{self._tail()}"
                )
            time.sleep(_POLL_S)
        self._is_awaited = False  # its address is known from now on

    def check(self) -> None:
        """Raise WorkError where the server ended twice without an answer in between: it will not do better."""
        if self._failure is not None:
            raise WorkError(self._failure)

    def answered(self) -> None:
        """Note that the server works: should it end now, it is started again."""
        self._has_answered = True

    def new_restarts(self) -> int:
        """Return how many times the server was started again since this was last asked."""
        told, self._num_told = self._num_told, self._num_restarts
        return self._num_told - told

    def version(self) -> str | None:
        """Return the server's version as it tells it (vLLM's and SGLang's pages); None where it has no such page."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for page in ("version", "get_server_info"):
            with (
                contextlib.suppress(OSError, ValueError),
                direct.open(f"http://127.0.0.1:{self._port}/{page}", timeout=10) as answer,
            ):
                said = json.loads(answer.read())
                if isinstance(said, dict) and said.get("version"):
                    return str(said["version"])
        return None

    def _start(self) -> None:
        words = [word.replace(PORT, str(self._port)) for word in words_of(self.command)]
        with self.log.open("ab") as log:
            log.write(f"--- fineclip starts: {redacted(words)}\n".encode())
            log.flush()
            self._running.start(
                [sys.executable, "-I", supervise.__file__, str(_GRACE_S), *words], self._environment, log
            )

    def _look(self) -> None:
        """Start the server again where it has ended; a second end without an answer in between is a failure."""
        process = self._running.process
        if process is None or not self.end.alive or self._failure is not None or (code := process.poll()) is None:
            return
        if not self._has_answered and not self._lost_its_port():
            self._failure = f"--caption.serve: the server {_ending(code)} before it answered; {self._tail()}"
            return
        if self._has_answered:
            self._has_answered = False
            self._num_restarts += 1
            _log.warning("the caption server %s; it is started again (its log: %s)", _ending(code), self.log)
        try:
            self._start()
        except OSError as error:  # of this thread nobody would hear
            self._failure = f"--caption.serve: the server {_ending(code)}, and cannot be started again: {error}"

    def _lost_its_port(self) -> bool:
        """Return whether another program was quicker to take the port, and choose another one then."""
        if not self._is_awaited or self._num_ports == _MOST_PORTS or not _TAKEN.search(self._tail()):
            return False
        self._num_ports += 1
        self._port = _free_port()
        _log.warning("another program took the caption server's port; it is started on port %d", self._port)
        return True

    def _tail(self) -> str:
        """Return the end of the server's log, as a part of a message."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        said = without_secrets(" / ".join(line.strip() for line in lines if line.strip()))
        return f"its log, {self.log}, ends: {said}"


class _Running:
    """A server's supervisor, apart from the object that started it, so that it can be ended when that is gone."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._is_ended = False
        self._lock = threading.Lock()

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: BinaryIO) -> None:
        """Start it in the place of one that has ended, unless `end` was called."""
        with self._lock:
            if self.process is not None and self.process.stdin is not None:
                self.process.stdin.close()
            if self._is_ended:
                return
            self.process = subprocess.Popen(  # noqa: S603 - the user's own command
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C means us: what is under way is finished first
            )

    def end(self) -> None:
        """Let the supervisor end the server, and wait for that."""
        with self._lock:
            self._is_ended = True
        if self.process is None or self.process.stdin is None:
            return
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE_S + 5)


def _watch(server: "weakref.ref[ManagedServer]") -> None:
    while (watched := server()) is not None:
        watched._look()
        del watched
        time.sleep(_POLL_S)


def words_of(command: str) -> list[str]:
    """Return the words of a command, as a shell would part them. Raises ValueError where it has none, or no port."""
    words = shlex.split(command)
    if not words:
        raise ValueError("it is empty")
    if PORT not in command:
        raise ValueError(f"it must have {PORT} where the server takes its port")
    return [str(Path(words[0]).expanduser()), *words[1:]]


def _environment(device: Device) -> dict[str, str]:
    """Return ours, without what would mix our packages into the server's, and with one GPU where there are any."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    resolved = device.resolve()
    if resolved.startswith("cuda"):
        environment["CUDA_VISIBLE_DEVICES"] = f"GPU-{gpu_id(int(resolved.removeprefix('cuda:'))).removeprefix('GPU-')}"
    return environment


def _free_port() -> int:
    """Return a port that nobody has.

    It is outside of those that the system gives to outgoing connections: one of them would take it while the server
    loads, or, sent to the port itself to see whether it is there, would meet itself.
    """
    first, last = _OUTGOING
    with contextlib.suppress(OSError, ValueError):
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [port for port in range(_LEAST_PORT, 65536) if not first <= port <= last]
    for port in random.SystemRandom().sample(ports, len(ports)):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _log_file(port: int) -> Path:
    folder = Path(tempfile.gettempdir()) / f"fineclip-servers-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{port}.log"


def _ending(code: int) -> str:
    number = -code if code < 0 else code - _SIGNALLED  # of the supervisor itself, or as it tells of the server
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(number).name}"
    return f"ended with exit code {code}"
