"""The attacks of `tests/support/attacks.py` behind a real Postfix: mail leaves through it and the milter, which signs
and remembers, and what comes back comes through either door: Postfix with the milter, or the receiver on its socket.

DNS is a server on loopback. Who connects is told to Postfix by XCLIENT and to the receiver by the PROXY protocol, so
that SPF has more to judge than loopback.
"""

from __future__ import annotations

import json
import re
import smtplib
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count

import pytest

from mailback.locations import sqlite_path
from mailback.returnpath import Key, Keys, ReturnPaths
from tests.postfix.conftest import MILTER, Scene, scene
from tests.postfix.instance import Smtpd, fields_of
from tests.support.attacks import (
    ATTACKS,
    DOMAIN,
    MX,
    MX_NAME,
    SENDER,
    STRANGER,
    Attack,
    World,
    names,
    records,
    the_innocent_stay,
    the_rightful_is_believed,
)
from tests.support.dns import DnsServer, silent_port
from tests.support.mail import reply
from tests.support.server import wait_for

LETTER = (
    "From: News <{sender}>\r\nTo: reader\r\nSubject: The November issue\r\nMessage-ID: {id}\r\n\r\nGood morning\r\n"
)
DOORS = ["milter", "receiver"]


@dataclass
class Stage:
    scene: Scene
    paths: ReturnPaths


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    smtpds = {
        "mx": Smtpd({"smtpd_authorized_xclient_hosts": "127.0.0.1"}),
        "submission": Smtpd({"milter_macro_daemon_name": "ORIGINATING"}),
    }
    parameters = {"smtpd_milters": MILTER, "milter_default_action": "tempfail"}
    with DnsServer() as dns, scene(smtpds, lambda _: parameters, started=False) as running:
        records(dns)
        key = running.config.with_name("return-path.key")
        assert running.command("signing", "keygen", "--file", str(key)).returncode == 0
        text = running.config.read_text().replace(
            "[smtpd]\n", "[smtpd]\nproxy_protocol = true\nproxy_clients = ['127.0.0.1']\n"
        )
        running.config.write_text(
            f"{text}[policy]\nwave_minimum = 5\n[signing]\nsecret_file = '{key}'\n"
            f"[auth]\nnameservers = ['{dns.address}']\n"
        )
        running.mailback.start()
        yield Stage(running, ReturnPaths(Keys.load(key), DOMAIN, 14))
        running.mailback.stop()


class Behind(World):
    """A world behind Postfix, with its own people."""

    def __init__(self, tag: str, stage: Stage, door: str) -> None:
        super().__init__(tag)
        self._stage = stage
        self._scene = stage.scene
        self.door = door

    def send(self, message_id: str, *recipients: str, days_ago: int = 0) -> str:
        if days_ago:
            return self._sent_before(message_id, recipients, days_ago)
        with self._scene.postfix.client("submission") as client:
            client.sendmail(SENDER, list(recipients), LETTER.format(sender=SENDER, id=message_id).encode())
        wait_for(lambda: self._scene.world.return_paths(recipients[0]), what=self._scene.postfix.log())
        return self._scene.world.return_paths(recipients[0])[-1]

    def _sent_before(self, message_id: str, recipients: tuple[str, ...], days_ago: int) -> str:
        at = datetime.now(UTC) - timedelta(days=days_ago)
        path = self._stage.paths.sign(SENDER, recipients, at)
        assert path is not None
        entry = {
            "at": at.isoformat(), "message_id": message_id, "sender": SENDER, "recipients": recipients,
            "return_path": path.partition("@")[0],
        }  # fmt: skip
        file = self._scene.config.with_name("sent.json")
        file.write_text(json.dumps(entry) + "\n")
        done = self._scene.command("journal", "add", "--json", str(file))
        assert done.returncode == 0, done.stderr
        return path

    def deliver(self, to: str, raw: bytes, *, sender: str, client: str, helo: str) -> bool:
        session = self._milter(client, helo) if self.door == "milter" else self._receiver(client, helo)
        with session:
            session.ehlo(helo)
            code, said = session.docmd(f"MAIL FROM:<{sender}>")
            assert code == 250, said
            code, said = session.docmd(f"RCPT TO:<{to}>")
            if code != 250:
                assert code == 550
                assert b"5.7.1" in said
                return False
            code, said = session.data(raw)
            assert code == 250, said
        return True

    def _milter(self, client: str, helo: str) -> smtplib.SMTP:
        session = self._scene.postfix.client("mx")
        session.ehlo("xclient.test")
        code, said = session.docmd(f"XCLIENT ADDR={client} NAME={helo} HELO={helo}")
        assert code == 220, said
        return session

    def _receiver(self, client: str, helo: str) -> smtplib.SMTP:
        session = Proxied(client, self._scene.receiver_port)
        session.local_hostname = helo
        return session

    def suppressed(self) -> set[str]:
        path = sqlite_path(self._scene.store_url)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            rows = store.execute(
                "SELECT address_key FROM suppression WHERE lifted_at IS NULL AND address_key LIKE ?", (f"%{self.tag}%",)
            )
            return {row[0] for row in rows}

    def unsubscribe_address(self, recipient: str) -> str:
        return self._stage.paths.unsubscribe_address(recipient)

    def grades(self) -> list[str]:
        return [event["provenance"] for event in self._scene.events() if self.tag in (event["recipient"] or "")]


class Proxied(smtplib.SMTP):
    """A session that begins with the header of the PROXY protocol, version 1."""

    def __init__(self, client: str, port: int) -> None:
        self._client = client
        super().__init__("127.0.0.1", port, timeout=30)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((host, port), timeout)
        connection.sendall(f"PROXY TCP4 {self._client} 127.0.0.1 40000 25\r\n".encode())
        return connection


_numbers = count()


def world(stage: Stage, door: str) -> Behind:
    return Behind(f"-{next(_numbers)}x", stage, door)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_the_innocent_stay(stage: Stage, attack: Attack, door: str) -> None:
    the_innocent_stay(world(stage, door), attack)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_the_rightful_twin_is_believed(stage: Stage, attack: Attack, door: str) -> None:
    the_rightful_is_believed(world(stage, door), attack)


# -- what is told of it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_the_results_stand_on_top_and_forged_ones_are_gone(stage: Stage, door: str) -> None:
    behind = world(stage, door)
    to = f"answers{behind.tag}@sender.test"
    forged = b"Authentication-Results: mx.sender.test; dkim=pass header.d=bank.test\r\n"
    kept = b"Authentication-Results: mx.elsewhere.test; dkim=fail\r\n"
    answer = kept + forged + reply(f"ann{behind.tag}@receiver.test", message_id=f"<r{behind.tag}@receiver.test>")
    assert behind.receive(to, answer, sender=f"ann{behind.tag}@receiver.test", client=MX, helo=MX_NAME)
    wait_for(lambda: stage.scene.world.to(to), what="the reply is passed on")
    [delivered] = stage.scene.world.to(to)
    names_in_order = [line.partition(b":")[0].lower() for line in delivered.splitlines() if b":" in line]
    first_of_ours = names_in_order.index(b"authentication-results")
    assert first_of_ours < names_in_order.index(b"x-mailback-kind")
    results = [value for _, value in fields_of(delivered, "Authentication-Results")]
    assert results[0].startswith("mx.sender.test; spf=pass smtp.mailfrom=ann")
    assert "dmarc=pass header.from=receiver.test" in results[0]
    assert results[1:] == ["mx.elsewhere.test; dkim=fail"]


@pytest.mark.parametrize("door", DOORS)
def test_the_event_tells_who_brought_it_and_how_far_it_was_believed(stage: Stage, door: str) -> None:
    behind = world(stage, door)
    behind.from_mx(SENDER, behind.gone(message_id=behind.made_up))
    assert behind.grades() == ["authenticated"]
    done = stage.scene.command("explain", behind.victim, "--json")
    [event] = json.loads(done.stdout)["events"]
    assert event["authentication"]["spf"] == {"result": "pass", "domain": MX_NAME, "identity": "helo"}
    assert any(e["layer"] == "provenance" and "speaks for" in e["text"] for e in event["evidence"])
    shown = stage.scene.command("explain", behind.victim).stdout
    assert re.search(r"authentication +spf +pass", shown)


@pytest.mark.parametrize("door", DOORS)
def test_a_stranger_who_fails_the_spf_of_the_name_he_gives_is_forged(stage: Stage, door: str) -> None:
    behind = world(stage, door)
    behind.receive(
        SENDER, behind.gone(f"ann{behind.tag}@elsewhere.test", behind.made_up), client=STRANGER, helo=MX_NAME
    )
    assert behind.grades() == ["forged"]


# -- a wave ---------------------------------------------------------------------------------------------------


def test_a_wave_at_a_broken_provider_freezes_and_one_command_takes_it_back(stage: Stage) -> None:
    behind = world(stage, "milter")
    people = [f"p{number}{behind.tag}@wave.test" for number in range(9)]
    paths = {who: behind.send(f"<{who}>", who) for who in people}

    def refused(who: str) -> None:
        behind.door = DOORS[people.index(who) % 2]
        behind.receive(paths[who], behind.gone(who, f"<{who}>"))

    refused(people[0])
    _give_a_week_of_history(stage.scene, "permanent:wave.test/user_unknown")
    for who in people[1:]:
        refused(who)
    assert len(behind.suppressed()) == 5
    [wave] = [json.loads(line) for line in stage.scene.command("wave", "list", "--json").stdout.splitlines()]
    assert (wave["provider"], wave["state"], wave["members"]) == ("wave.test", "open", 9)
    waiting = stage.scene.command("review", "list", "--json").stdout
    assert sum(f'"{who}"' in waiting for who in people) == 4
    for verb, left in (("undo", 0), ("confirm", 9), ("undo", 0)):
        assert stage.scene.command("wave", verb, str(wave["id"])).returncode == 0
        assert len(behind.suppressed()) == left
    assert stage.scene.command("store", "check").returncode == 0  # the audit trail holds


def _give_a_week_of_history(scene: Scene, cause: str) -> None:
    """One failure an hour over the last week, of a cause that was counted before."""
    path = sqlite_path(scene.store_url)
    with closing(sqlite3.connect(str(path), timeout=30)) as store, store:
        [(hour,)] = store.execute("SELECT hour FROM rate WHERE cause = ?", (cause,)).fetchall()
        earlier = [(cause, hour - back, 1) for back in range(1, 169)]
        store.executemany("INSERT INTO rate (cause, hour, count) VALUES (?, ?, ?)", earlier)


# -- the budget of the unproven -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unsigned() -> Iterator[Stage]:
    """A stage where nothing proves a report, and three an hour are believed without."""
    smtpds = {"mx": Smtpd({"smtpd_authorized_xclient_hosts": "127.0.0.1"})}
    parameters = {"smtpd_milters": MILTER, "milter_default_action": "tempfail"}
    with DnsServer() as dns, scene(smtpds, lambda _: parameters, started=False) as running:
        records(dns)
        text = running.config.read_text().replace(
            "[smtpd]\n", "[smtpd]\nproxy_protocol = true\nproxy_clients = ['127.0.0.1']\n"
        )
        running.config.write_text(f"{text}[policy]\nunproven_per_hour = 3\n[auth]\nnameservers = ['{dns.address}']\n")
        running.mailback.start()
        yield Stage(running, ReturnPaths(Keys((Key(1, date(2026, 1, 1), b"k" * 32),)), DOMAIN, 14))
        running.mailback.stop()


def _poison(behind: Behind, name: str, *, networks: bool) -> tuple[list[str], str]:
    """Six reports from one network in the names of six domains, or from six networks in the name of one; and one more
    from elsewhere about somebody else."""
    place = DOORS.index(behind.door)
    people = [f"{name}{number}{behind.tag}@receiver.test" for number in range(7)]
    for number, who in enumerate(people):
        last = number == len(people) - 1
        network = 100 + number if networks or last else 50
        domain = number if last or not networks else 0
        claimed = f"mx.{name}{behind.tag}{domain}.test".encode()
        report = behind.gone(who, f"<{who}>").replace(b"mx.receiver.test", claimed)
        client = f"198.{18 + place}.{network}.{number + 1}"
        assert behind.receive(f"answers{behind.tag}@sender.test", report, client=client, helo=f"h{number}.nowhere.test")
    return people[:-1], people[-1]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("networks", [False, True], ids=["one network, many names", "many networks, one name"])
def test_a_flood_of_unproven_bounces_switches_off_no_more_than_its_budget(
    unsigned: Stage, door: str, networks: bool
) -> None:
    behind = world(unsigned, door)
    # Budgets are counted by the hour: a flood around its end would have two.
    wait_for(lambda: f"{datetime.now(UTC):%M:%S}" < "59:40", what="the next hour")
    flooded, elsewhere = _poison(behind, "n" if networks else "d", networks=networks)
    assert set(behind.grades()) == {"unproven"}
    assert behind.suppressed() == {*flooded[:3], elsewhere}, "others' reports are believed on"
    waiting = unsigned.scene.command("review", "list", "--json").stdout
    assert [who for who in flooded if f'"{who}"' in waiting] == flooded[3:]


# -- dead DNS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deaf() -> Iterator[Stage]:
    """A stage whose DNS server never answers."""
    smtpds = {"mx": Smtpd({"smtpd_authorized_xclient_hosts": "127.0.0.1"})}
    parameters = {"smtpd_milters": MILTER, "milter_default_action": "tempfail"}
    with silent_port() as dead, scene(smtpds, lambda _: parameters, started=False) as running:
        text = running.config.read_text().replace("workers = 2", "workers = 1")
        text = text.replace("[smtpd]\n", "[smtpd]\nworkers = 1\nproxy_protocol = true\nproxy_clients = ['127.0.0.1']\n")
        address = f"127.0.0.1:{dead.getsockname()[1]}"
        running.config.write_text(f"{text}[auth]\nnameservers = ['{address}']\ntimeout_s = 1.0\nbudget_s = 3.0\n")
        running.mailback.start()
        yield Stage(running, ReturnPaths(Keys((Key(1, date(2026, 1, 1), b"k" * 32),)), DOMAIN, 14))
        running.mailback.stop()


@pytest.mark.parametrize("door", DOORS)
def test_mail_passes_while_dns_is_dead_and_one_worker_serves_others_meanwhile(deaf: Stage, door: str) -> None:
    behind = world(deaf, door)
    to = f"answers{behind.tag}@sender.test"
    answer = reply("ann@receiver.test", message_id=f"<r{behind.tag}@receiver.test>")
    waiting = threading.Thread(target=behind.from_mx, args=(to, answer, "ann@receiver.test"))
    waiting.start()
    for _ in range(3):  # the one worker answers its other conversations, whatever the first one waits for
        session = behind._milter(MX, MX_NAME) if door == "milter" else behind._receiver(MX, MX_NAME)
        with session:
            session.ehlo(MX_NAME)
            assert session.docmd("MAIL FROM:<>")[0] == 250
            assert session.docmd("RCPT TO:<bounces@sender.test>")[0] == 250
    waiting.join(30)
    assert not waiting.is_alive()
    wait_for(lambda: deaf.scene.world.to(to), what=deaf.scene.mailback.log())
    [(_, results)] = fields_of(deaf.scene.world.to(to)[0], "Authentication-Results")
    assert "spf=temperror" in results
    assert "dmarc=temperror" in results
