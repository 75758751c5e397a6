"""Servers say where they cannot listen before they load a model."""

import socket

import pytest

from syncflow.cli import main


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_that_is_taken_is_told_in_a_line(command, taken, capsys, monkeypatch):
    monkeypatch.setattr("syncflow.extras.need", lambda *given: None)
    monkeypatch.setattr("syncflow.load", lambda *given, **options: pytest.fail("loaded"))
    assert main([command, "--port", str(taken)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert f"cannot listen on 127.0.0.1, port {taken} (Address already in use)" in said.err
    assert "--port" in said.err


@pytest.mark.parametrize("command", ["serve", "demo"])
@pytest.mark.parametrize("port", ["0", "65536", "abc"])
def test_ports_are_between_1_and_65535(command, port, capsys):
    try:
        code = main([command, "--port", port])
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and "between 1 and 65535" in capsys.readouterr().err


def test_an_address_of_no_machine_is_told(capsys, monkeypatch):
    monkeypatch.setattr("syncflow.extras.need", lambda *given: None)
    assert main(["demo", "--host", "192.0.2.1"]) == 2
    assert "cannot listen on 192.0.2.1, port 7860" in capsys.readouterr().err
