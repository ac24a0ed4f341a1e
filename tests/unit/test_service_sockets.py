"""Listening sockets: every way to write an address, and what may stand in the way of opening it."""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailback.service import sockets
from mailback.service.sockets import Listen, SocketError, open_listener, parse_listen


@pytest.fixture(autouse=True)
def _close_what_was_opened() -> Iterator[None]:
    yield
    sockets.close_all()


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:8025", Listen("inet", "127.0.0.1", 8025)),
        ("[::1]:25", Listen("inet", "::1", 25)),
        ("*:25", Listen("inet", "", 25)),
        (":25", Listen("inet", "", 25)),
        ("localhost:25", Listen("inet", "localhost", 25)),
        ("inet:8891@127.0.0.1", Listen("inet", "127.0.0.1", 8891)),
        ("inet6:8891@::1", Listen("inet", "::1", 8891)),
        ("unix:/run/mailback/milter.sock", Listen("unix", path="/run/mailback/milter.sock")),
        ("local:/run/x", Listen("unix", path="/run/x")),
        ("/run//x", Listen("unix", path="/run/x")),
        ("fd:smtpd", Listen("fd", name="smtpd")),
        ("fd:mailback-smtpd.socket", Listen("fd", name="mailback-smtpd.socket")),
        ("lmtp:127.0.0.1:24", Listen("inet", "127.0.0.1", 24, lmtp=True)),
        ("lmtp:unix:/run/x", Listen("unix", path="/run/x", lmtp=True)),
        ("LMTP:/run/x", Listen("unix", path="/run/x", lmtp=True)),
    ],
)  # fmt: skip
def test_every_way_to_write_an_address(text: str, listen: Listen) -> None:
    assert parse_listen(text) == listen
    assert parse_listen(str(listen)) == listen


@pytest.mark.parametrize(
    "text",
    ["", "25", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "::1:25", "[::1]", "127.0.0.1:65536", "unix:", "unix:x", "fd:",
     "fd:a b", "inet:25", "inet:x@y", "http://x:1", "unix:/" + "x" * 108, "unix:/a\0b", "lmtp:", "lmtp:lmtp:/x"],
)  # fmt: skip
def test_what_is_no_address_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|too long|NUL|between 1 and 65535"):
        parse_listen(text)


def test_second_open_of_one_address_is_the_same_socket(tmp_path: Path) -> None:
    first = open_listener(f"unix:{tmp_path}/s")
    assert open_listener(f"lmtp:{tmp_path}/s") is first
    assert open_listener(f"{tmp_path}//s") is first


def test_unix_socket_is_never_open_to_more_than_its_mode(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_listener(f"unix:{tmp_path}/s", mode=0o660)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660


def test_mode_follows_a_reload(tmp_path: Path) -> None:
    open_listener(f"unix:{tmp_path}/s", mode=0o660)
    open_listener(f"unix:{tmp_path}/s", mode=0o666, group=os.getgid())
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o666


def test_group_of_the_socket_is_set(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid())
    open_listener(f"unix:{tmp_path}/s", group=group.gr_name)
    assert (tmp_path / "s").stat().st_gid == group.gr_gid


def test_unknown_group_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="no group 'no-such-group'"):
        open_listener(f"unix:{tmp_path}/s", group="no-such-group")


def test_dead_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    open_listener(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_socket_of_a_living_server_is_left_to_it(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(path)
        living.listen()
        with pytest.raises(SocketError, match="another server answers"):
            open_listener(f"unix:{path}")
        assert Path(path).exists()


def test_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SocketError, match="no socket"):
        open_listener(f"unix:{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "precious"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match=f"create the folder {tmp_path}/none"):
        open_listener(f"unix:{tmp_path}/none/s")


def test_closing_removes_our_socket_file_but_not_a_successors(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    open_listener(f"unix:{ours}")
    open_listener(f"unix:{other}")
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(tmp_path / "new"))
        (tmp_path / "new").rename(other)
        sockets.close_all()
    assert not ours.exists()
    assert other.exists()


def test_port_in_use_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SocketError, match="another server holds the port"):
            open_listener(f"127.0.0.1:{port}")


def test_unknown_host_is_an_error_of_the_address() -> None:
    with pytest.raises(SocketError, match="cannot find the address"):
        open_listener("host.invalid:25")


def test_star_takes_both_families() -> None:
    port = open_listener("*:0").getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def test_reload_closes_what_is_no_longer_named_and_keeps_the_rest() -> None:
    kept, gone = open_listener("127.0.0.1:0"), open_listener("127.0.0.2:0")
    sockets.begin()
    assert open_listener("127.0.0.1:0") is kept
    assert sockets.close_unwanted() == ["127.0.0.2:0"]
    assert kept.fileno() >= 0
    assert gone.fileno() == -1


def test_failed_reload_closes_what_it_opened_and_keeps_what_was_there() -> None:
    before = open_listener("127.0.0.1:0")
    sockets.begin()
    new = open_listener("127.0.0.2:0")
    assert sockets.revert() == ["127.0.0.2:0"]
    assert new.fileno() == -1
    assert open_listener("127.0.0.1:0") is before


ACTIVATED = """
import os, socket, sys
from mailback.service import sockets
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
try:
    for name in sys.argv[2:]:
        listener = sockets.open_listener("fd:" + name)
        print(listener.getsockname()[1], listener.get_inheritable(), listener.getblocking())
    print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
except sockets.SocketError as error:
    print(error)
"""


def activated(listeners: list[socket.socket], names: str, *wanted: str, wrong_pid: bool = False) -> list[str]:
    """What a process says that finds these sockets from descriptor 3 on, as systemd passes them."""
    source = [listener.fileno() for listener in listeners]
    spare = [os.dup(fd) for fd in source]  # out of the way of 3, 4, ...
    shuffle = "; ".join(f"os.dup2({fd}, {3 + n})" for n, fd in enumerate(spare))
    launcher = (
        f"import os, sys; {shuffle}; os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], *sys.argv[2:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", launcher, ACTIVATED, "1" if wrong_pid else "0", *wanted],
        env=os.environ | {"LISTEN_FDS": str(len(source)), "LISTEN_FDNAMES": names},
        pass_fds=spare, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    for fd in spare:
        os.close(fd)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_sockets_that_systemd_opened_are_found_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        told = activated([one, two], "smtpd:policyd", "policyd", "smtpd")
        assert told == [f"{two.getsockname()[1]} False False", f"{one.getsockname()[1]} False False", "[]"]


def test_one_name_for_two_sockets_leaves_both_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        told = activated([one, two], "smtpd:smtpd", "smtpd", "smtpd.1")
        assert [line.split()[0] for line in told[:2]] == [str(one.getsockname()[1]), str(two.getsockname()[1])]


def test_sockets_meant_for_another_process_are_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        assert "handed over: none" in activated([one], "smtpd", "smtpd", wrong_pid=True)[0]


def test_name_that_was_not_handed_over_tells_those_that_were() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        assert "handed over: smtpd" in activated([one], "smtpd", "milter")[0]


def test_socket_that_does_not_listen_is_refused() -> None:
    with socket.socket() as idle:
        assert "ListenStream=" in activated([idle], "smtpd", "smtpd")[0]
