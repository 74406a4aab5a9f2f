"""A network of this machine's own: hosts that a switch connects, each of which can be cut off. Linux, root, `ip`."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ON_A_NETWORK = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None,
    reason="NOT TESTED: hosts that are cut off. Networks are made by `ip` and `unshare`, as root",
)
CUT_S = 30.0


class Host:
    """A network namespace with an address and a host name; programs in it see the files of this machine."""

    def __init__(self, name: str, number: int, subnet: str, switch: str) -> None:
        self.name, self.address = name, f"{subnet}.{number + 2}"
        self._namespace, self._cable = f"{switch}-{name}", f"{switch}c{number}"
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "set", self._cable, "master", switch, "up")
        _ip("-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", self._namespace, "link", "set", device, "up")

    def command(self, *command: str | Path) -> list[str]:
        """Return the command line that runs `command` on this host, as the process that is started."""
        renamed = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return ["ip", "netns", "exec", self._namespace, *renamed, *map(str, command)]

    def cut(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self._cable, "down")

    def join(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self._cable, "up")

    def remove(self) -> None:
        """Take the host away; its cable goes with it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self._namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def network(*names: str) -> Iterator[tuple[str, list[Host]]]:
    """Yield this machine's own address on a network, and the hosts on it; all is taken away afterwards."""
    switch, subnet = f"fc{secrets.token_hex(3)}", f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
    hosts: list[Host] = []
    _ip("link", "add", switch, "type", "bridge")
    try:
        _ip("addr", "add", f"{subnet}.1/24", "dev", switch)
        _ip("link", "set", switch, "up")
        for number, name in enumerate(names):
            hosts.append(Host(name, number, subnet, switch))
        yield f"{subnet}.1", hosts
    finally:
        for host in hosts:
            host.remove()
        _ip("link", "del", switch)
