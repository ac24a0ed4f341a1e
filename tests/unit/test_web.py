"""Over HTTP, by a running server: a click unsubscribes whom the link was made for, and only who has the key may ask."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailback.policy.breaker import new, opened_by_hand
from mailback.store import Store
from tests.support.dns import DnsServer
from tests.support.server import free_port, running, wait_for

KEY = "correct horse"
LONG = f"{'x' * 60}@receiver.test"
"""Too long to stand in its own token: the journal tells whom it is for."""


@dataclass
class Site:
    base: str
    config: Path
    store_url: str
    log: Path

    def ask(
        self, path: str, body: object = None, *, key: str | None = KEY, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        data = None
        sent = dict(headers or {})
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.base}{path}", data, sent)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, _read(answer.read(), answer.headers["Content-Type"])
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error.read(), error.headers["Content-Type"])

    def link(self, recipient: str, list_id: str | None = None) -> str:
        status, made = self.ask("/api/unsubscribe-links", {"addresses": [recipient], "list_id": list_id})
        assert status == 201
        fields = made[0]["fields"]
        assert fields["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        url = fields["List-Unsubscribe"].split(">")[0].lstrip("<")
        assert url.startswith("https://mail.sender.test/unsubscribe/")
        return str(url.removeprefix("https://mail.sender.test"))

    def allowed(self, recipient: str) -> bool:
        return bool(self.ask(f"/api/check?address={recipient}")[1][0]["allowed"])


def mailback(*arguments: str) -> str:
    """A command, as a process of its own."""
    command = [sys.executable, "-m", "mailback.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _read(octets: bytes, kind: str) -> Any:
    return json.loads(octets) if kind.startswith("application/json") else octets.decode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("web")
    config, port = folder / "mailback.toml", free_port()
    store_url = f"sqlite:///{folder}/mailback.db"
    mailback("signing", "keygen", "--file", str(folder / "path.key"))
    (folder / "api.key").write_text(KEY + "\n")
    config.write_text(f"""
[store]
url = "{store_url}"
[mail]
sending_domains = ["sender.test"]
bounce_domain = "bounce.sender.test"
[signing]
secret_file = "{folder}/path.key"
[web]
listen = "127.0.0.1:{port}"
public_url = "https://mail.sender.test/"
key_file = "{folder}/api.key"
""")
    with DnsServer() as dns:
        dns.add("known.test", "MX", "10 mx.known.test.")
        dns.add("mx.known.test", "A", "192.0.2.1")
        config.write_text(f"{config.read_text()}[auth]\nnameservers = ['{dns.address}']\n")
        with running(config):
            yield Site(f"http://127.0.0.1:{port}", config, store_url, config.with_suffix(".log"))


CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("recipient", ["ada@receiver.test", LONG])
def test_a_click_unsubscribes_whom_the_link_was_made_for_at_once(site: Site, recipient: str) -> None:
    link = site.link(recipient)
    assert site.allowed(recipient)
    status, page = site.ask(link, CLICK, key=None, headers=FORM)
    assert (status, "Unsubscribed" in page) == (200, True)
    assert not site.allowed(recipient)
    with Store.open(site.store_url) as store:
        event = next(store.events(newest_first=True, limit=1))
    assert (event.kind.value, event.subcategory, event.provenance.value) == (
        "unsubscribe", "unsubscribe_request", "signed",
    )  # fmt: skip
    assert event.recipient == recipient


def test_two_clicks_are_one_event(site: Site) -> None:
    link = site.link("twice@receiver.test")
    for _ in range(2):
        assert site.ask(link, CLICK, key=None, headers=FORM)[0] == 200
    with Store.open(site.store_url) as store:
        assert len(list(store.events(key="twice@receiver.test"))) == 1


def test_a_scanner_that_follows_the_link_unsubscribes_nobody(site: Site) -> None:
    link = site.link("bob@receiver.test")
    status, page = site.ask(link, key=None)
    assert status == 200
    assert '<form method="post">' in page
    assert "bo***@receiver.test" in page
    assert site.allowed("bob@receiver.test")


def test_a_link_that_was_changed_or_is_a_return_path_is_refused(site: Site) -> None:
    link = site.link("eve@receiver.test")
    other = link[:-1] + ("a" if link[-1] != "a" else "b")
    for wrong in (other, "/unsubscribe/unsubscribe-x", "/unsubscribe/" + "y" * 400, "/unsubscribe/%0d%0aX:%20y"):
        assert site.ask(wrong, CLICK, key=None, headers=FORM)[0] == 404
    assert site.allowed("eve@receiver.test")


def test_the_command_mints_the_same_fields(site: Site) -> None:
    told = json.loads(mailback("journal", "unsubscribe", "--config", str(site.config), "--json", "carol@receiver.test"))
    link = told["fields"]["List-Unsubscribe"].split(">")[0].removeprefix("<https://mail.sender.test")
    assert site.ask(link, CLICK, key=None, headers=FORM)[0] == 200
    assert not site.allowed("carol@receiver.test")


def test_an_address_that_somebody_enters_is_checked_and_the_attempt_is_kept(site: Site) -> None:
    entered = {"addresses": ["ann@gmial.com", "bad@@x", "bob@known.test"], "source": "shop", "by": "203.0.113.9"}
    with Store.open(site.store_url) as store:
        code, answers = site.ask("/api/validate", entered)
        assert code == 200
        told = {one["address"]: (one["verdict"], one["reasons"], one["suggestion"]) for one in answers}
        assert told["ann@gmial.com"][0] == "blocked"
        assert told["ann@gmial.com"][2] == "ann@gmail.com"
        assert told["bad@@x"][:2] == ("blocked", ["syntax"])
        assert told["bob@known.test"] == ("ok", [], None)
        [kept] = store.explain("ann@gmial.com").captures
    assert (kept.verdict, kept.source, kept.actor) == ("blocked", "shop", "203.0.113.9")
    assert site.ask("/api/validate", {"addresses": []})[0] == 422
    assert site.ask("/api/validate", {"addresses": ["a" * 2000]})[0] == 422


def test_an_application_hears_that_a_provider_holds_mail_off_for_now(site: Site) -> None:
    with Store.open(site.store_url) as store:
        now = datetime.now(UTC)
        breaker = opened_by_hand(new("held.test", "ip", "*", now), now + timedelta(hours=1), "their outage", now)
        store.submit(lambda transaction: transaction.put_breaker(breaker, "test")).result()

    def told() -> dict[str, Any]:
        answers: list[dict[str, Any]] = site.ask("/api/check?address=ann@held.test")[1]
        return answers[0]

    wait_for(lambda: told()["later"])
    assert (told()["allowed"], told()["breaker"]) == (False, "held.test/ip/*")
    assert told()["reply"].startswith("451 4.7.1 <ann@held.test>: mail to held.test is held until ")


@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x"])
@pytest.mark.parametrize("path", ["/api/check?address=a@b.test", "/api/journal", "/api/openapi.json", "/api/"])
def test_nobody_without_the_key_asks_or_tells_anything(site: Site, path: str, key: str | None) -> None:
    assert site.ask(path, key=key)[0] == 401
    assert KEY not in site.log.read_text()


def test_what_went_out_another_way_is_remembered_all_or_none(site: Site) -> None:
    good = {"message_id": "<api-1@sender.test>", "sender": "news@sender.test", "recipients": ["ada@receiver.test"]}
    status, told = site.ask("/api/journal", [good, {"recipients": ["no address"]}])
    assert (status, "entry 1" in told["detail"]) == (422, True)
    with Store.open(site.store_url) as store:
        assert store.find_journal(message_id="<api-1@sender.test>") == []
    assert site.ask("/api/journal", [good]) == (201, {"added": 1})
    with Store.open(site.store_url) as store:
        [entry] = store.find_journal(message_id="<api-1@sender.test>")
    assert (entry.source, entry.recipients) == ("api", ("ada@receiver.test",))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/journal", b"{"), ("/api/journal", b"[]"), ("/api/journal", b'{"a": 1}'), ("/api/journal", b"[[1]]"),
        ("/api/unsubscribe-links", b'{"addresses": []}'), ("/api/unsubscribe-links", b'{"addresses": ["x"]}'),
        ("/api/unsubscribe-links", b"\xff\xfe"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_and_changes_nothing(site: Site, path: str, body: bytes) -> None:
    assert site.ask(path, body)[0] in (400, 422)


@pytest.mark.parametrize(
    ("field", "code"), [("Content-Length: 1100000", b"413"), ("Transfer-Encoding: chunked", b"411")]
)
def test_a_request_of_any_length_is_refused_before_it_is_read(site: Site, field: str, code: bytes) -> None:
    host, _, port = site.base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(f"POST /api/journal HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n".encode())
        assert connection.recv(100).split()[1] == code


def test_a_load_balancer_is_told_that_all_is_well(site: Site) -> None:
    assert site.ask("/healthz", key=None) == (200, "ok\n")
