"""Servers that a worker starts, watches, starts again and ends: real processes, a fake server in them."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import children_of
from pipeline.caption import managed
from pipeline.caption.managed import ManagedServer, words_of
from pipeline.caption.openai import Openai, OpenaiConfig
from pipeline.caption.secrets import redacted
from pipeline.caption.whose import Ours
from pipeline.cli.profiles import PROFILES
from pipeline.errors import WorkError
from pipeline.models.device import CPU
from pipeline.sample import Caption, Crop
from tests.caption_server import MODEL

_ROOT = Path(__file__).parents[3]
FAKE = f"env PYTHONPATH={_ROOT} {sys.executable} -m tests.caption_server {{port}}"


def _crops(count: int) -> list[Crop]:
    rng = np.random.default_rng(0)
    return [
        Crop(
            region_id=f"{number:016x}",
            pixels=rng.integers(0, 256, (40, 50, 3), dtype=np.uint8),
            box=(0, 0, 50, 40),
            image_width=100,
            image_height=100,
            label=None,
        )
        for number in range(count)
    ]


@pytest.fixture
def captioner() -> Iterator[Openai]:
    captioner = Openai(OpenaiConfig(serve=FAKE, model=MODEL))
    yield captioner
    managed_by(captioner).end()


def managed_by(captioner: Openai) -> ManagedServer:
    assert isinstance(captioner._whose, Ours)
    return captioner._whose.managed


def _server_pid(captioner: Openai) -> int:
    (child,) = children_of(managed_by(captioner).pid)
    return child


def _wait(is_so: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]


def test_it_answers_as_a_server_that_was_there_before(captioner: Openai) -> None:
    crops = _crops(5)
    captions = captioner.caption(crops, [captioner.prompt] * 5)
    assert all(
        isinstance(caption, Caption) and caption.text.startswith("A picture of 50 by 40") for caption in captions
    )
    assert captioner.new_restarts() == 0


def test_one_that_is_killed_is_started_again_and_nothing_is_lost(captioner: Openai) -> None:
    crops = _crops(20)
    before = captioner.caption(crops, [captioner.prompt] * 20)
    os.kill(_server_pid(captioner), signal.SIGKILL)
    assert captioner.caption(crops, [captioner.prompt] * 20) == before
    assert (captioner.new_restarts(), captioner.new_restarts()) == (1, 0)


def test_it_ends_with_all_its_processes_when_its_worker_is_killed() -> None:
    command = f"sh -c {shlex.quote('sleep 300 & sleep 300 # {port}')}"
    program = (
        "from pipeline.caption.managed import ManagedServer; from pipeline.models.device import CPU; import time;"
        f"server = ManagedServer({command!r}, device=CPU);"
        "print(server.pid, flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=_ROOT) as worker:
        assert worker.stdout is not None
        supervisor = int(worker.stdout.readline())
        _wait(lambda: len([pid for shell in children_of(supervisor) for pid in children_of(shell)]) == 2)
        (shell,) = children_of(supervisor)
        processes = [supervisor, shell, *children_of(shell)]
        worker.kill()
    _wait(lambda: not any(map(_exists, processes)))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of a parent's death")
def test_it_ends_with_its_supervisor_and_another_takes_its_place(captioner: Openai) -> None:
    crops = _crops(5)
    before = captioner.caption(crops, [captioner.prompt] * 5)
    server = _server_pid(captioner)
    os.kill(managed_by(captioner).pid, signal.SIGKILL)
    _wait(lambda: not _exists(server))
    assert captioner.caption(crops, [captioner.prompt] * 5) == before
    assert captioner.new_restarts() == 1


def test_one_that_ignores_being_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.caption.managed._GRACE_S", 0.5)
    server = ManagedServer(f"sh -c {shlex.quote('trap : TERM; while :; do sleep 1; done # {port}')}", device=CPU)
    _wait(lambda: bool(children_of(server.pid)))
    (shell,) = children_of(server.pid)
    server.end()
    assert not _exists(shell)


def test_one_that_dies_at_its_start_is_told_of_at_once_with_its_last_words() -> None:
    command = f"sh -c {shlex.quote('echo no such model as {port}; exit 3')}"
    with pytest.raises(
        WorkError, match=r"ended with exit code 3 before it answered; .*\.log, ends: .*no such model as"
    ):
        Openai(OpenaiConfig(serve=command))


def test_one_that_never_listens_is_told_of_after_start_s() -> None:
    with pytest.raises(WorkError, match=r"nothing listens .* after 0\.3 s \(--caption\.start-s\)"):
        Openai(OpenaiConfig(serve=f"sh -c {shlex.quote('sleep 30 # {port}')}", start_s=0.3))


def test_one_that_listens_and_says_nothing_is_waited_for_start_s_in_all() -> None:
    program = "import socket, time; time.sleep(2); kept = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(WorkError, match=r"within 3 s \(--caption\.start-s\): it is silent"):
        Openai(OpenaiConfig(serve=f"{sys.executable} -c {shlex.quote(program)}", start_s=3))
    assert time.monotonic() - began < 4.8


def test_a_port_that_another_program_takes_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        ports = iter([taken, free := managed._free_port()])
        monkeypatch.setattr(managed, "_free_port", lambda: next(ports))
        captioner = Openai(OpenaiConfig(serve=FAKE, model=MODEL))
        assert managed_by(captioner).url == f"http://127.0.0.1:{free}/v1"
        (caption,) = captioner.caption(_crops(1), [captioner.prompt])
        managed_by(captioner).end()
    assert isinstance(caption, Caption)
    assert f"another program took the caption server's port; it is started on port {free}" in caplog.text
    assert captioner.new_restarts() == 0


def test_no_outgoing_connection_can_take_a_server_s_port_while_it_loads() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(first <= managed._free_port() <= last for _ in range(20))


def test_a_program_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(WorkError, match="there is no program 'no-such-server' on the PATH"):
        Openai(OpenaiConfig(serve="no-such-server --port {port}"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("vllm serve", r"must have \{port\}"),
        ("", "it is empty"),
        ("vllm 'serve {port}", "No closing quotation"),
    ],
)
def test_commands_that_cannot_work_are_refused(command: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"--caption.serve.*{message}"):
        OpenaiConfig(serve=command)


def test_a_server_that_is_there_and_one_to_start_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give one"):
        OpenaiConfig(serve=FAKE, url="http://127.0.0.1:1/v1")


def test_its_command_is_in_the_provenance_without_port_and_secrets(captioner: Openai) -> None:
    said = captioner.provenance()
    assert said["server"] == {"command": redacted(words_of(FAKE)), "version": "fake 1"}
    assert "{port}" in said["server"]["command"]
    assert said["settings"]["serve"] is None


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sesame-open")
    command = "env HF_TOKEN=abc serve --api-key one --port {port} --ssl-key=two x://me:three@host sesame-open --api-key"
    shown = " ".join(shlex.split(redacted(words_of(command))))
    assert shown == "env HF_TOKEN=*** serve --api-key *** --port {port} --ssl-key=*** x://***@host *** --api-key"


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("serve --api-key one --port {port}", "serve --api-key *** --port {port}"),
        ("MY_API_KEY=one serve --port {port}", "MY_API_KEY=*** serve --port {port}"),
        ("export HF_TOKEN='one two'; serve {port}", "export HF_TOKEN=***; serve {port}"),
        ('serve {port} --options {"password": "one"}', 'serve {port} --options {"password": ***}'),
        ("serve keys/model --port {port}", "serve keys/model --port {port}"),
    ],
)
def test_secrets_in_the_script_of_a_shell_are_not_shown(script: str, shown: str) -> None:
    assert shlex.split(redacted(["bash", "-c", script])) == ["bash", "-c", shown]


def test_one_that_cannot_be_started_again_is_told_of(captioner: Openai, monkeypatch: pytest.MonkeyPatch) -> None:

    def fail() -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(managed_by(captioner), "_start", fail)
    os.kill(_server_pid(captioner), signal.SIGKILL)
    with pytest.raises(WorkError, match="SIGKILL, and cannot be started again: the disk is full"):
        captioner.caption(_crops(1), [captioner.prompt])


def test_no_profile_starts_a_program() -> None:
    assert not any("serve" in name for profile in PROFILES.values() for name in profile.defaults)


def test_numbers_of_tokens_are_no_secrets() -> None:
    command = "vllm serve m --max-num-batched-tokens 8192 --tokenizer-mode=slow --port {port}"
    assert " ".join(shlex.split(redacted(words_of(command)))) == command
