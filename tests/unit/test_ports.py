"""Ports for servers that start in a moment."""

import socket

import pytest

from endpoint_operator.local import ports


def test_neither_the_system_nor_ray_gives_them_to_others():
    assert all(20_000 <= ports.free_port() < 30_000 for _ in range(20))


def test_a_port_that_is_taken_is_passed_over(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_PORTS", range(port, port + 1))
        with pytest.raises(OSError, match=f"^all ports from {port} to {port} are taken$"):
            ports.free_port()


def test_services_have_ranges_of_their_own_until_they_end(monkeypatch):
    # Not those of services that may run here now.
    monkeypatch.setattr(ports, "_RANGES", [range(18_000, 19_000), range(19_000, 20_000)])
    with ports.range_of_its_own() as one:
        with ports.range_of_its_own() as other:
            assert not set(one) & set(other)
            assert len(one) == len(other) == 999
            with pytest.raises(OSError, match="^all 2 ranges of ports from 18000 on are taken$"):
                ports.range_of_its_own().__enter__()
        with ports.range_of_its_own() as third:
            assert third == other
