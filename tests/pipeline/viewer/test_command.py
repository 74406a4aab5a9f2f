"""The command as it is run."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from fineclip import main


def test_view_prints_its_address_serves_and_ends_on_an_interrupt(url):
    command = [sys.executable, "-m", "fineclip", "view", url, "--host-name", "hub.example.org", "--filter", os.devnull]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "filter list" in refused.stderr and "Traceback" not in refused.stderr
    with subprocess.Popen(command[:-2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"<!doctype html>" in answer.read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    token = address.split("/")[3]
    assert process.returncode == 0 and said.startswith("fineclip: through hub.example.org: open its address for port")
    assert said.endswith(f"{token}/\n") and said.count("\n") == 1
    assert address.startswith("http://127.0.0.1:") and len(token) == 22


def test_a_port_that_is_taken_is_an_error_without_a_traceback(url, client, capsys):
    assert main(["view", url, "--port", str(client.port)]) == 2
    said = capsys.readouterr().err
    assert "(Address already in use)" in said and "leave --port out" in said and said.count("\n") == 1


@pytest.mark.parametrize("port", ["80000", "-1", "http"])
def test_what_is_no_port_is_wrong_usage(url, port, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["view", url, f"--port={port}"])
    assert ended.value.code == 2 and f"{port}" in capsys.readouterr().err


def test_an_address_of_another_machine_is_an_error_with_a_remedy(url, capsys):
    assert main(["view", url, "--host", "192.0.2.1"]) == 2
    assert "give as --host an address of this machine" in capsys.readouterr().err
    assert main(["view", url, "--host", "no.such.host.invalid"]) == 2
    assert "(no such host): give as --host" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--compare", "nothing"], ["--overlay", "nothing"], ["--marks", "marks.txt"]])
def test_what_is_not_there_is_an_error(url, more, capsys):
    assert main(["view", url, *more]) == 2
    assert "nothing" in capsys.readouterr().err or more[0] == "--marks"


def test_a_server_that_is_not_there_is_no_missing_data_set(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for command in ("view", "doctor"):
        assert main([command, f"http://127.0.0.1:{port}/data"]) == 5
        said = capsys.readouterr().err.lstrip()  # of rich 14, an empty line comes first
        assert said.startswith("fineclip: ") and f"127.0.0.1:{port}" in said and said.count("\n") == 1
        assert "no such" not in said and "not there" not in said and "check the address and the network" in said
