"""`mailback doctor`: what it must see before an operator loses mail over it. Postfix is asked by its own postconf."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailback.cli import doctor
from mailback.cli import postfix as postfix_of_doctor
from mailback.cli.diagnosis import Finding
from mailback.cli.postfix import Postconf, examine_postfix
from mailback.settings import Settings, listen_address
from mailback.store import Store, Transaction, checking
from tests.support.dns import DnsServer, silent_port

MILTER = "[milter]\nlisten = 'unix:/run/mailback/milter.sock'\n"
POLICY = "[policyd]\nlisten = '127.0.0.1:8892'\n"


def states(findings: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(finding.state, finding.what) for finding in findings]


def worst(findings: Iterator[Finding]) -> list[str]:
    """What is not well; all of it with advice."""
    found = [finding for finding in findings if finding.state != "ok"]
    assert all(finding.advice for finding in found)
    return [f"{finding.state}: {finding.what}" for finding in found]


# ---- Postfix ----------------------------------------------------------------------------------------------------

needs_postconf = pytest.mark.skipif(shutil.which("postconf") is None, reason="Postfix is not installed")


@pytest.fixture
def postfix(tmp_path: Path) -> Path:
    """A configuration folder of Postfix; tests write what differs into its main.cf."""
    folder = tmp_path / "postfix"
    folder.mkdir()
    (folder / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = mx.sender.test\n")
    (folder / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    return configured(folder)


def configured(postfix: Path, **parameters: str) -> Path:
    with (postfix / "main.cf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in parameters.items())
    long_ago = 1_700_000_000  # Postfix waits a second before it reads a main.cf that was changed just now
    os.utime(postfix / "main.cf", (long_ago, long_ago))
    return postfix


@needs_postconf
def test_a_milter_that_postfix_does_not_know_is_told(postfix: Path) -> None:
    settings = Settings.loads(MILTER)
    [told] = worst(examine_postfix(settings, postfix))
    assert told.startswith("fail: smtpd_milters does not name Mailback's milter")


@needs_postconf
def test_a_good_milter_set_up_is_well(postfix: Path) -> None:
    ours = "unix:/run/mailback/milter.sock"
    configured(postfix, smtpd_milters=f"inet:127.0.0.1:8891, {ours}", non_smtpd_milters=ours,
               internal_mail_filter_classes="bounce", milter_default_action="tempfail")  # fmt: skip
    assert worst(examine_postfix(Settings.loads(MILTER), postfix)) == []


@needs_postconf
def test_a_milter_of_one_service_in_master_cf_counts(postfix: Path) -> None:
    (postfix / "master.cf").write_text("smtp inet n - n - - smtpd\n  -o smtpd_milters=unix:/run/mailback/milter.sock\n")
    told = worst(examine_postfix(Settings.loads(MILTER), postfix))
    assert all("smtpd_milters does not name" not in line for line in told if not line.startswith("warn: non_"))
    assert told[0].startswith("warn: non_smtpd_milters")


@needs_postconf
@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"milter_default_action": "reject"}, "fail: milter_default_action = reject"),
        ({"milter_default_action": "quarantine"}, "warn: milter_default_action = quarantine"),
        ({"milter_protocol": "2"}, "fail: milter_protocol = 2"),
        ({"non_smtpd_milters": ""}, "warn: non_smtpd_milters does not name"),
        ({"internal_mail_filter_classes": "notify"}, "warn: internal_mail_filter_classes lacks `bounce`"),
    ],
)
def test_each_milter_parameter_that_matters_is_looked_at(postfix: Path, parameters: dict[str, str], told: str) -> None:
    ours = "unix:/run/mailback/milter.sock"
    good = {"smtpd_milters": ours, "non_smtpd_milters": ours, "internal_mail_filter_classes": "bounce",
            "milter_default_action": "tempfail"}  # fmt: skip
    [found] = worst(examine_postfix(Settings.loads(MILTER), configured(postfix, **(good | parameters))))
    assert found.startswith(told)


@needs_postconf
@pytest.mark.parametrize("in_trouble", ["tempfail", "accept", "quarantine"])
@pytest.mark.parametrize(("away", "told"), [("accept", "mail passes unread"), ("tempfail", "told to try again")])
def test_mailback_away_and_a_store_in_trouble_are_two_questions(
    postfix: Path, away: str, told: str, in_trouble: str
) -> None:
    ours = "unix:/run/mailback/milter.sock"
    configured(postfix, smtpd_milters=ours, non_smtpd_milters=ours, internal_mail_filter_classes="bounce",
               milter_default_action=away)  # fmt: skip
    found = list(examine_postfix(Settings.loads(f"{MILTER}failure_action = '{in_trouble}'\n"), postfix))
    assert worst(iter(found)) == []
    assert any(told in finding.what and finding.what.endswith(f": {in_trouble}") for finding in found)


@needs_postconf
def test_a_chrooted_smtpd_cannot_see_a_socket_outside_its_queue(postfix: Path) -> None:
    ours = "unix:/run/mailback/milter.sock"
    configured(postfix, smtpd_milters=ours, non_smtpd_milters=ours, internal_mail_filter_classes="bounce",
               milter_default_action="tempfail", queue_directory="/var/spool/postfix")  # fmt: skip
    (postfix / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    [told] = worst(examine_postfix(Settings.loads(MILTER), postfix))
    assert told.startswith("fail: smtpd runs chrooted")
    inside = Settings.loads("[milter]\nlisten = 'unix:/var/spool/postfix/mailback/milter.sock'\n")
    configured(postfix, smtpd_milters="unix:mailback/milter.sock", non_smtpd_milters="unix:mailback/milter.sock")
    assert worst(examine_postfix(inside, postfix)) == []


@pytest.mark.root
@needs_postconf
@pytest.mark.parametrize("front", ["milter", "policyd"])
def test_a_socket_that_postfix_may_not_reach_is_told(postfix: Path, front: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mailback-doctor-") as name:  # pytest's own folder is closed to others
        folder = Path(name)
        path = folder / "door.sock"
        ours = f"unix:{path}"
        configured(postfix, smtpd_milters=ours, non_smtpd_milters=ours, internal_mail_filter_classes="bounce",
                   milter_default_action="tempfail", smtpd_recipient_restrictions=
                   f"check_policy_service {{ {ours}, timeout=10s, default_action=DUNNO }}, reject")  # fmt: skip
        settings = Settings.loads(f"[{front}]\nlisten = '{ours}'\n")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            path.chmod(0o660)
            [entering, writing] = worst(examine_postfix(settings, postfix))
            assert entering == f"fail: {path}: Postfix may not enter {folder}"
            assert writing.startswith(f"fail: {path}: Postfix is not in its group")
            shutil.chown(folder, group="postfix")
            shutil.chown(path, group="postfix")
            folder.chmod(0o750)
            assert worst(examine_postfix(settings, postfix)) == []
            path.chmod(0o600)
            [told] = worst(examine_postfix(settings, postfix))
            assert told.startswith(f"fail: {path}: its group may not write to it")


@needs_postconf
def test_a_policy_service_without_a_way_out_is_told(postfix: Path) -> None:
    settings = Settings.loads(POLICY)
    assert worst(examine_postfix(settings, postfix))[0].startswith("fail: no restriction asks")
    configured(postfix, smtpd_recipient_restrictions="check_policy_service inet:127.0.0.1:8892, permit")
    [told] = worst(examine_postfix(settings, postfix))
    assert "a client waits 100s and gets 451" in told
    good = "check_policy_service { inet:127.0.0.1:8892, timeout=10s, default_action=DUNNO }"
    configured(postfix, smtpd_recipient_restrictions=good)
    assert worst(examine_postfix(settings, postfix)) == []


@needs_postconf
def test_another_port_is_not_ours(postfix: Path) -> None:
    configured(postfix, smtpd_recipient_restrictions="check_policy_service inet:127.0.0.1:88921, permit")
    assert worst(examine_postfix(Settings.loads(POLICY), postfix))


@needs_postconf
def test_a_socketmap_that_no_table_names_is_told(postfix: Path) -> None:
    settings = Settings.loads("[policyd]\nsocketmap = '127.0.0.1:8893'\n")
    assert worst(examine_postfix(settings, postfix))[0].startswith("warn: no table of Postfix")
    configured(postfix, transport_maps="socketmap:inet:127.0.0.1:8893:transport")
    assert worst(examine_postfix(settings, postfix)) == []


@needs_postconf
def test_a_table_on_the_live_database_is_told(postfix: Path, tmp_path: Path) -> None:
    live = tmp_path / "mailback.db"
    live.touch()
    (tmp_path / "table.cf").write_text(f"dbpath = {live}\nquery = SELECT 1\n")
    settings = Settings.loads(f"[store]\nurl = 'sqlite:///{live}'\n")
    configured(postfix, smtpd_recipient_restrictions=f"check_recipient_access sqlite:{tmp_path}/table.cf")
    [told] = worst(examine_postfix(settings, postfix))
    assert told.startswith("fail: sqlite:")
    live.chmod(0o660)
    tmp_path.chmod(0o2770)
    [told] = worst(examine_postfix(settings, postfix))
    assert told.startswith("warn: sqlite:")


@needs_postconf
def test_a_broken_postfix_configuration_is_a_finding(tmp_path: Path) -> None:
    [told] = worst(examine_postfix(Settings.loads(MILTER), tmp_path / "none"))
    assert told.startswith("fail: postconf fails: ")


def test_a_host_without_postfix_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert states(examine_postfix(Settings.loads(MILTER))) == [
        ("ok", "Postfix is not installed here: nothing to look at")
    ]


@needs_postconf
def test_a_postfix_that_nobody_set_up_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Debian leaves it with "No configuration", and so every host where `make test` ran."""
    monkeypatch.setattr(postfix_of_doctor, "_built_in_folder", lambda: tmp_path)
    [told] = worst(examine_postfix(Settings.loads(MILTER)))
    assert told == f"warn: Postfix is installed and not set up: there is no {tmp_path}/main.cf"


def test_only_smtp_servers_count_for_the_chroot() -> None:
    lines = ["smtp inet n - n - - smtpd", "cleanup unix n - y - 0 cleanup"]
    assert not Postconf({}, [line.split(None, 7) for line in lines]).chrooted


# ---- sockets ----------------------------------------------------------------------------------------------------


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that says one thing to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(timeout=10)


def test_what_answers_as_it_should_is_well() -> None:
    for answer, probe in (
        (b"220 mx ESMTP\r\n", doctor._greeting), (b"action=DUNNO\n\n", doctor._policy_answer),
        (b"9:NOTFOUND ,", doctor._socketmap_answer), (b"HTTP/1.1 200 OK\r\n\r\n", doctor._health),
    ):  # fmt: skip
        with answering(answer) as port:
            assert doctor._probed("x", listen_address(f"127.0.0.1:{port}"), probe).state == "ok"


def test_another_program_on_our_port_is_told() -> None:
    for probe in (doctor._greeting, doctor._policy_answer, doctor._socketmap_answer, doctor._health):
        with answering(b"HTTP/1.1 400 Bad Request\r\n") as port:
            assert doctor._probed("x", listen_address(f"127.0.0.1:{port}"), probe).state == "fail"


def test_a_web_server_whose_store_is_gone_is_told() -> None:
    with answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as port:
        told = doctor._probed("x", listen_address(f"127.0.0.1:{port}"), doctor._health)
    assert (told.state, "store cannot be used" in told.what) == ("fail", True)


def test_every_door_of_the_settings_is_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = "".join(
        f"[{section}]\n{key} = '127.0.0.1:{port + n}'\n{more}"
        for n, (section, key, more) in enumerate(
            [("smtpd", "listen", "next_hop = 'discard'\n"), ("milter", "listen", ""), ("policyd", "listen", ""),
             ("web", "listen", "")]
        )
    )  # fmt: skip
    looked_at = {finding.what.split()[0] for finding in doctor._listening(Settings.loads(text))}
    assert looked_at == {"smtpd.listen", "milter.listen", "policyd.listen", "web.listen"}


def test_the_unit_that_is_named_for_a_socket_of_systemd_is_one_that_ships() -> None:
    told = doctor._probed("x", listen_address("fd:smtpd"), doctor._greeting)
    units = {path.name for path in (Path(__file__).parents[2] / "systemd").iterdir()}
    assert {word for word in told.advice.split() if word.startswith("mailback")} <= units


def test_nobody_there_is_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for listen in (f"127.0.0.1:{port}", f"unix:{tmp_path}/none.sock"):
        finding = doctor._probed("x", listen_address(listen), doctor._greeting)
        assert (finding.state, "nobody listens" in finding.what) == ("warn", True)


# ---- files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "state").mkdir(mode=0o700)
    url = f"sqlite:///{tmp_path}/state/mailback.db"
    with Store.open(url) as store:
        store.upgrade()
    return Settings.loads(f"[store]\nurl = '{url}'\n")


def test_a_sound_store_is_well(settings: Settings) -> None:
    assert worst(doctor._store(settings)) == []


def test_it_is_told_that_a_broken_provider_would_not_be_noticed(settings: Settings) -> None:
    now = datetime.now(UTC)
    with Store.open(settings.store.url) as store:
        store.submit(lambda transaction: transaction.one_more("bounced:receiver.test", now)).result()
        assert any("a provider that breaks" in told for told in worst(doctor._store(settings)))
        store.submit(lambda transaction: transaction.note_hour("arrived", now)).result()
    assert worst(doctor._store(settings)) == []


def test_a_database_that_anybody_may_read_is_told(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "state" / "mailback.db").chmod(0o644)
    assert any("can be read by everybody" in told for told in worst(doctor._store(settings)))
    (tmp_path / "state").chmod(0o777)
    assert any("may be written by anybody" in told for told in worst(doctor._store(settings)))


def test_a_store_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    settings = Settings.loads(f"[store]\nurl = 'sqlite:///{tmp_path}/state/mailback.db'\n")
    [told] = worst(doctor._store(settings))
    assert told.startswith("warn:")


def test_a_damaged_database_is_told(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "state" / "mailback.db").write_bytes(b"no database at all" * 100)
    assert any(told.startswith("fail:") for told in worst(doctor._store(settings)))


def test_little_space_is_told_once_with_what_helps(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "LOW_DISK_BYTES", 1 << 62)
    found = [finding for finding in doctor._store(settings) if "free" in finding.what]
    assert [(finding.state, finding.advice.split(":")[0]) for finding in found] == [("fail", "free space")]
    assert ("ok", "schema, integrity and audit chain are whole") in states(doctor._store(settings))


def test_little_space_is_told_before_there_is_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "LOW_DISK_BYTES", 1 << 62)
    told = worst(doctor._store(Settings.loads(f"[store]\nurl = 'sqlite:///{tmp_path}/mailback.db'\n")))
    assert [line.startswith("fail:") for line in told if "MB free" in line] == [True]


def test_a_database_of_another_schema_is_upgraded_not_restored(settings: Settings, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state" / "mailback.db")) as connection:
        connection.execute("DROP TABLE alembic_version")
    [finding] = [finding for finding in doctor._store(settings) if finding.state == "fail"]
    assert finding.advice == "run: mailback store upgrade"


def test_a_user_that_does_not_exist_is_told(settings: Settings, tmp_path: Path) -> None:
    other = Settings.loads(
        f"[store]\nurl = '{settings.store.url}'\n[service]\nuser = 'no-such-user-here'\n", files=False
    )
    if (tmp_path / "state").stat().st_uid == 0:
        assert any("no user 'no-such-user-here'" in told for told in worst(doctor._store(other)))


@pytest.mark.root
def test_what_root_makes_first_is_the_services(tmp_path: Path) -> None:
    """`mailback store upgrade` of root, before the service ran, would make a database that the service cannot write."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o750)
    os.chown(folder, 65534, 65534)
    url = f"sqlite:///{folder}/mailback.db"
    with Store.open(url) as store:
        store.upgrade()
    settings = Settings.loads(f"[store]\nurl = '{url}'\n")
    made = {path.name: path.stat().st_uid for path in folder.iterdir()}
    assert made["mailback.db"] == 65534
    assert set(made.values()) == {65534}
    assert not [line for line in worst(doctor._store(settings)) if "belong" in line]
    os.chown(folder / "mailback.db", 0, 0)
    assert any("does not belong to the owner of its folder" in line for line in worst(doctor._store(settings)))


def test_secrets_and_settings_closed_to_others(tmp_path: Path) -> None:
    key, api, file = tmp_path / "key", tmp_path / "api.key", tmp_path / "mailback.toml"
    key.write_text(f"1 2026-11-20 {'ab' * 32}\n")
    api.write_text("ab" * 32)
    api.chmod(0o644)
    file.write_text(f"[mail]\nbounce_domain = 'bounce.sender.test'\n[signing]\nsecret_file = '{key}'\n"
                    f"[web]\nkey_file = '{api}'\n")  # fmt: skip
    key.chmod(0o644)
    file.chmod(0o666)
    told = worst(doctor._settings(Settings.load(file, environ={}), file))
    assert any("signing.secret_file" in line for line in told)
    assert any("web.key_file" in line for line in told)
    assert any(f"{file} may be written by anybody" in line for line in told)
    key.chmod(0o600)
    api.chmod(0o600)
    file.chmod(0o644)
    told = worst(doctor._settings(Settings.load(file, environ={}), file))
    assert not [line for line in told if line.startswith("fail:")]
    assert file.stat().st_mode & stat.S_IROTH


def test_a_network_file_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_mounted", lambda _folder: "nfs4")
    assert any("nfs4" in told for told in worst(doctor._file_system(tmp_path)))


def test_the_file_system_of_a_folder_is_found() -> None:
    assert doctor._mounted(Path("/proc/self")) == "proc"


# ---- the whole --------------------------------------------------------------------------------------------------


def test_one_area_that_cannot_be_looked_at_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_settings: Settings) -> Iterator[Finding]:
        raise RuntimeError("boom")
        yield

    monkeypatch.setattr(doctor, "_dns", broken)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    findings = list(doctor.examine(None))
    assert ("dns", "fail") in {(finding.area, finding.state) for finding in findings}
    assert findings[-1].area == "postfix"


def test_what_this_user_may_not_see_is_no_fault_of_the_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mailback.walk.knowledge import Knowledge

    def closed(_settings: Settings) -> Knowledge:
        raise PermissionError(13, "Permission denied", "/var/lib/mailback/models/serving.json")

    config = tmp_path / "mailback.toml"
    config.write_text(f"[store]\nurl = 'sqlite:///{tmp_path}/state/mailback.db'\n[auth]\nenabled = false\n")
    monkeypatch.setattr(Knowledge, "load", closed)
    [told] = [finding for finding in doctor.examine(config) if finding.state == "fail" and finding.area == "settings"]
    assert told.what == "/var/lib/mailback/models/serving.json: this user may not look at it"
    assert "as root" in told.advice


def test_a_wrong_configuration_is_all_that_is_told(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[nope]\n[smtpd]\nworkers = 'x'\n")
    findings = list(doctor.examine(file))
    assert [(finding.area, finding.state) for finding in findings] == [("settings", "fail")] * 2


def test_the_exit_code_says_whether_something_fails(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[nope]\n")
    done = subprocess.run(
        [sys.executable, "-m", "mailback.cli.main", "doctor", "--json", "--config", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert '"state": "fail"' in done.stdout


# ---- the log that is followed -----------------------------------------------------------------------------------


def test_a_log_that_nobody_reads_is_told(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    settings = Settings.loads(f"store.url = 'sqlite:///{tmp_path}/m.db'\nfollow.files = '{log}'")
    [missing] = worst(doctor._followed(settings))
    assert missing.startswith(f"fail: follow.files: {log}: is not there")
    log.write_text("Nov 25 10:00:01 mx postfix/smtp[1]: 4YxK1p2Qz3z9rT: removed\n" * 3)
    with Store.open(settings.store.url) as store:
        store.upgrade()
        [never] = worst(doctor._followed(settings))
        assert "never followed" in never
        at = log.stat().st_size

        def followed(offset: int) -> None:
            def put(transaction: Transaction) -> None:
                transaction.put_place(f"follow:{log}", {"log": "log:x"})
                transaction.put_place("log:x", {"offset": offset})

            store.submit(put).result()

        followed(at)
        assert worst(doctor._followed(settings)) == []
        followed(at - 5)
        assert worst(doctor._followed(settings)) == [], "what was written just now may wait"
        later = log.stat().st_mtime + 3600
        os.utime(log, (later, later))
        [behind] = worst(doctor._followed(settings))
        assert "5 octets wait" in behind


@pytest.mark.root
def test_a_log_that_the_services_user_may_not_read_is_told(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.touch(mode=0o640)
    assert doctor._unreadable_log(log, "nobody") is not None
    assert doctor._unreadable_log(log, None) is None
    log.chmod(0o644)
    assert doctor._unreadable_log(log, "nobody") is None
    shutil.chown(log, "nobody")
    log.chmod(0o400)
    assert doctor._unreadable_log(log, "nobody") is None


def test_each_dns_server_that_authentication_asks_is_asked() -> None:
    with DnsServer() as server, silent_port() as dead:
        silent = f"127.0.0.1:{dead.getsockname()[1]}"
        alive, gone = doctor._nameservers([server.address, silent])
    assert (alive.state, gone.state) == ("ok", "fail")
    assert silent in gone.what
