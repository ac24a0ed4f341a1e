"""Settings: every problem at once, each with its line; nothing guessed, nothing secret shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mailback import locations
from mailback.message import LIMITS
from mailback.reports.original import OriginalNames
from mailback.service.sockets import parse_listen
from mailback.settings import (
    Problem,
    Settings,
    SettingsError,
    all_keys,
    contradictions,
    expected,
    listen_address,
    variable,
)


def problems(text: str, **environ: str) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        Settings.loads(text, environ=environ)
    return caught.value.problems


def told(text: str, **environ: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.key) for problem in problems(text, **environ)]


def test_the_example_of_the_documents_loads() -> None:
    settings = Settings.loads(
        """
        [store]
        url = "sqlite:////var/lib/mailback/mailback.db"
        [mail]
        sending_domains = ["Example.COM"]
        bounce_domain = "bounce.example.com"
        [smtpd]
        listen = "127.0.0.1:8025"
        next_hop = "maildir:/var/lib/mailback/inbox"
        bounces_to = "discard"
        [milter]
        listen = "unix:/run/mailback/milter.sock"
        workers = 0
        [policyd]
        listen = "127.0.0.1:8892"
        socketmap = "127.0.0.1:8893"
        [web]
        listen = "127.0.0.1:8894"
        [trust]
        require = "auto"
        """
    )
    assert settings.mail.sending_domains == ("example.com",)
    assert settings.accepted_domains == {"example.com", "bounce.example.com"}
    assert settings.smtpd.listen == ("127.0.0.1:8025",)
    assert settings.milter.socket_mode_bits == 0o660
    assert settings.web.listen == ("127.0.0.1:8894",)


def test_every_problem_is_told_at_once_with_its_line() -> None:
    assert told(
        """[store]
url = "mysql://x"
busy_timeout_s = "5"

[smtpd]
listen = [
  "127.0.0.1:8025",
  "[::1]:99999",   # no such port
  "nonsense",
]
workers = true
trusted_clients = ["10.0.0.1/8"]
[milter]
failure_action = "explode"
[polcyd]
[mail]
sending_domain = ["x"]
hostname = "a b"
"""
    ) == [
        (2, "store.url"), (3, "store.busy_timeout_s"), (6, "smtpd.next_hop"), (8, "smtpd.listen"), (9, "smtpd.listen"),
        (11, "smtpd.workers"), (12, "smtpd.trusted_clients"), (14, "milter.failure_action"), (15, "polcyd"),
        (17, "mail.sending_domain"), (18, "mail.hostname"),
    ]  # fmt: skip


def test_every_problem_says_what_was_expected() -> None:
    for problem in problems("[smtpd]\nlisten = 5\nworkers = -1\n[log]\nlevel = 'loud'\n[policy]\nmin_confidence = 3\n"):
        assert problem.expected
        assert f":{problem.line}: {problem.key}: " in str(problem)


def test_what_is_expected_names_both_ends_of_a_range() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.loads("[policy]\nwave_share = 7\n")
    [problem] = raised.value.problems
    assert problem.expected == "a number greater than 0 and less than 1"


def test_a_key_that_is_nearly_right_is_suggested() -> None:
    assert "did you mean 'sending_domains'" in problems("[mail]\nsending_domain = []\n")[0].what
    assert "did you mean 'smtpd'" in problems("[smptd]\n")[0].what
    assert problems("[mail]\nmax_connections = 4\n")[0].expected == "it in [smtpd]"
    assert problems("listen = '127.0.0.1:25'\n")[0].expected.startswith("it in [smtpd]")


def test_syntax_errors_do_not_hide_each_other_nor_other_problems() -> None:
    assert told("[smtpd]\nworkers = \nlisten = '127.0.0.1:25\nnext_hop = 'nowhere'\nfoo = 1\n") == [
        (2, ""), (3, ""), (4, "smtpd.next_hop"), (5, "smtpd.foo"),
    ]  # fmt: skip


def test_an_open_bracket_is_told_once_and_leads_to_no_guesses() -> None:
    assert len(problems('[smtpd]\nlisten = [\n  "127.0.0.1:25"\nworkers = 1\nnext_hop = "discard"\n[mail]\n')) == 1


def test_a_key_given_twice_is_told_with_the_second_line() -> None:
    assert told("[smtpd]\nworkers = 1\nworkers = 2\n")[0][0] == 3


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[smtpd]\nlisten = '127.0.0.1:25'\n", [(2, "smtpd.next_hop")]),
        ("[smtpd]\nlisten = '127.0.0.1:25'\nnext_hop = 'smtp:127.0.0.1:25'\n", [(3, "smtpd.next_hop")]),
        ("[smtpd]\nlisten = ['*:25', '127.0.0.1:25']\nnext_hop = 'discard'\n", [(2, "smtpd.listen")]),
        ("[milter]\nlisten = 'inet:25@127.0.0.1'\n[policyd]\nlisten = '127.0.0.1:25'\n", [(4, "policyd.listen")]),
        ("[policyd]\nlisten = 'unix:/x'\nsocketmap = '/x'\n", [(3, "policyd.socketmap")]),
        ("[smtpd]\ntls_key_file = '/nonexistent'\n", [(2, "smtpd.tls_key_file")] * 2),
        ("[smtpd]\ntls_required = true\n", [(2, "smtpd.tls_required")]),
        ("[smtpd]\nproxy_protocol = true\nproxy_clients = []\n", [(3, "smtpd.proxy_clients")]),
        ("[rules]\ndirectory = '/nonexistent/rules'\n", [(2, "rules.directory")]),
        ("mail.bounce_domain = 'b.test'\n[signing]\nsecret_file = '/nonexistent'\n", [(3, "signing.secret_file")]),
        ("mail.bounce_domain = 'b.test'\n[signing]\nsecret_file = '/dev/null'\n", [(3, "signing.secret_file")]),
        ("[signing]\nsecret_file = '/dev/null'\n", [(2, "signing.secret_file")] * 2),
        ("[milter]\nlisten = 'lmtp:127.0.0.1:25'\n", [(2, "milter.listen")]),
    ],
)
def test_contradictions_between_keys_are_told_where_they_stand(text: str, lines: list[tuple[int, str]]) -> None:
    assert told(text) == lines


def test_a_wrong_key_does_not_make_another_look_wrong() -> None:
    assert told("[smtpd]\nlisten = '127.0.0.1:99999'\nnext_hop = 'discard'\n") == [(2, "smtpd.listen")]
    assert told("[smtpd]\nlisten = '127.0.0.1:25'\nnext_hop = 5\n") == [(3, "smtpd.next_hop")]


def test_any_free_port_may_be_asked_for_twice() -> None:
    settings = Settings.loads("[policyd]\nlisten = '127.0.0.1:0'\nsocketmap = '127.0.0.1:0'\n")
    assert settings.policyd.socketmap == ("127.0.0.1:0",)


@pytest.mark.parametrize(
    "listen",
    ["127.0.0.1:8025", "[::1]:25", "*:25", "localhost:25", "unix:/run/x.sock", "local:/run/x.sock", "/run/x.sock",
     "inet:8891@127.0.0.1", "inet6:8891@::1", "fd:smtp", "lmtp:127.0.0.1:24", "lmtp:unix:/run/lmtp.sock"],
)  # fmt: skip
def test_an_address_that_the_settings_accept_can_be_listened_on(listen: str) -> None:
    address = listen_address(listen)
    opened = parse_listen(listen)
    assert {"tcp": "inet"}.get(address.family, address.family) == opened.kind
    assert (address.port, address.lmtp) == (opened.port, opened.lmtp)


@pytest.mark.parametrize(
    "listen",
    ["", "127.0.0.1", "127.0.0.1:", ":x", "::1:25", "[::1:25", "127.0.0.1:70000", "300.1.1.1:25", "fd:", "unix:",
     "a b:25", "unix:/" + "x" * 108, "smtp:host:25"],
)  # fmt: skip
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        listen_address(listen)


def test_relative_paths_start_at_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.loads(
        "[store]\nurl = 'sqlite:///state/m.db'\n[smtpd]\nlisten = '127.0.0.1:0'\nnext_hop = 'maildir:inbox'\n"
        "[milter]\nlisten = 'unix:m.sock'\n"
    )
    assert settings.store.url == f"sqlite:///{tmp_path}/state/m.db"
    assert settings.smtpd.next_hop == f"maildir:{tmp_path}/inbox"
    assert settings.milter.listen == (f"unix:{tmp_path}/m.sock",)


def test_the_environment_outranks_the_file_and_is_blamed_by_name() -> None:
    settings = Settings.loads(
        "[smtpd]\nworkers = 2\n",
        environ={"MAILBACK_SMTPD_WORKERS": "3", "MAILBACK_MAIL_SENDING_DOMAINS": "a.example, b.example"},
    )
    assert settings.smtpd.workers == 3
    assert settings.mail.sending_domains == ("a.example", "b.example")
    found = problems("[smtpd]\nworkers = 2\n", MAILBACK_SMTPD_WORKERS="many")
    assert (found[0].file, found[0].line, found[0].key) == ("environment", 0, "MAILBACK_SMTPD_WORKERS")


def test_an_empty_variable_is_as_good_as_none_but_empties_a_list() -> None:
    settings = Settings.loads(
        "[policyd]\nlisten = '127.0.0.1:0'\nworkers = 2\n",
        environ={"MAILBACK_POLICYD_LISTEN": "", "MAILBACK_POLICYD_WORKERS": "", "MAILBACK_STORE_URL": ""},
    )
    assert settings.policyd.listen == ()
    assert settings.policyd.workers == 2
    assert settings.store.url.startswith("sqlite:")


def test_variables_of_a_container_platform_are_not_taken_for_settings() -> None:
    for service in ("MAILBACK", "MAILBACK_MILTER", "MAILBACK_SMTPD"):
        names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_SMTP", "PORT", "PORT_25_TCP", "PORT_25_TCP_ADDR")
        Settings.loads("", environ={f"{service}_{name}": "10.0.0.1" for name in names})


def test_a_password_comes_from_its_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cr@t/\n")
    found = problems(f"[store]\nurl = 'postgresql://mb@db.example/mail'\npassword_file = '{secret}'\n")
    assert "s3cr" not in repr(found)
    url = locations.with_password("postgresql://mb@db.example/mail", secret.read_text())
    assert url == "postgresql://mb:s3cr%40t%2F@db.example/mail"
    assert locations.masked(url) == "postgresql://mb:***@db.example/mail"


def test_a_store_that_this_version_lacks_is_a_problem() -> None:
    for scheme in ("postgresql", "postgresql+psycopg", "postgres"):
        [problem] = problems(f"[store]\nurl = '{scheme}://mb@db.example/mail'\n")
        assert (problem.line, problem.key) == (2, "store.url")
        assert "PostgreSQL" in problem.what


def test_a_key_that_is_needed_is_missed_even_where_another_is_wrong() -> None:
    assert sorted(told("[smtpd]\nlisten = 'nonsense'\n")) == [(2, "smtpd.listen"), (2, "smtpd.next_hop")]
    assert told("[smtpd]\nlisten = 'nonsense'\nnext_hop = 5\n") == [(2, "smtpd.listen"), (3, "smtpd.next_hop")]


def test_users_and_groups_that_this_host_lacks_are_told_together() -> None:
    text = (
        "[milter]\nsocket_group = 'no-such-group'\n[policyd]\nsocket_group = 'no-such-group'\n"
        "[service]\nuser = 'no-such-user'\ngroup = 'no-such-group'\n"
    )
    assert told(text) == [
        (2, "milter.socket_group"), (4, "policyd.socket_group"), (6, "service.user"), (7, "service.group"),
    ]  # fmt: skip
    Settings.loads(text, files=False)
    Settings.loads("[service]\nuser = '0'\ngroup = '54321'\n[milter]\nsocket_group = 'root'\n")


def test_a_misspelt_variable_is_told() -> None:
    [first, second] = problems("", MAILBACK_STORE_URLL="x", MAILBACK_SMTPD_LISTENS="y")
    assert [problem.key for problem in (first, second)] == ["MAILBACK_SMTPD_LISTENS", "MAILBACK_STORE_URLL"]
    assert "'url'" in second.what
    Settings.loads("", environ={"MAILBACK_CONFIG": "x", "MAILBACK_TRACEBACK": "1", "MAILBACK_HOME": "y"})


def test_a_password_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    text = f"[store]\nurl = 'postgresql://mb@db.example/mail'\npassword_file = '{tmp_path}/none'\n"
    assert (3, "store.password_file") in told(text)


def test_a_wrong_url_is_told_without_the_password_in_it() -> None:
    assert all("hunter2" not in str(problem) for problem in problems("[store]\nurl = 'mysql://u:hunter2@h/d'\n"))
    assert all("hunter2" not in str(problem) for problem in problems("[store]\nurl = ['hunter2']\n"))


def test_masking_leaves_other_urls_alone() -> None:
    assert locations.masked("sqlite:////var/lib/m.db") == "sqlite:////var/lib/m.db"
    assert locations.masked("postgresql://h/d?user=a&password=b") == "postgresql://h/d?user=a&password=***"


def test_the_state_folder_decides_where_the_database_is() -> None:
    assert Settings.loads("[service]\nstate_directory = '/srv/mb'\n").store.url == "sqlite:////srv/mb/mailback.db"
    assert locations.state_directory({"STATE_DIRECTORY": "/var/lib/mailback:/x"}) == Path("/var/lib/mailback")
    assert locations.state_directory({"XDG_STATE_HOME": "/s"}) == Path("/s/mailback")
    assert locations.state_directory({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/mailback"


def test_a_command_finds_models_and_quarantine_where_the_service_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's home and what systemd tells the service alone must not make two state folders of one."""
    text = "[store]\nurl = 'sqlite:////srv/mb/mailback.db'\n"
    for environ in ({}, {"STATE_DIRECTORY": "/var/lib/mailback"}, {"XDG_STATE_HOME": "/home/ada/state"}):
        for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
            monkeypatch.setenv(name, environ.get(name, ""))
        settings = Settings.loads(text)
        assert settings.service.state_directory == Path("/srv/mb")
        assert settings.quarantine_route == "maildir:/srv/mb/quarantine"
    chosen = Settings.loads(text + "[service]\nstate_directory = '/elsewhere'\n")
    assert (chosen.service.state_directory, chosen.store.url) == (Path("/elsewhere"), "sqlite:////srv/mb/mailback.db")
    monkeypatch.chdir("/")
    assert Settings.loads("[store]\nurl = 'sqlite:///state/m.db'\n").service.state_directory == Path("/state")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[store]\nurl = 'sqlite:////a/b.db'\n",
        "[store]\nurl = 'sqlite:///a/b.db'\n",
        "[service]\nstate_directory = '/srv/mb'\n",
        "[smtpd]\nworkers = 'many'\n[store]\nurl = 'sqlite:////a/b.db'\n",
    ],
)
def test_the_quick_reading_of_check_finds_the_same_store(tmp_path: Path, text: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)
    quick = locations.store_url(file, {})
    if "many" in text:
        assert quick == "sqlite:////a/b.db"  # a wrong key elsewhere does not keep `check` from answering
    else:
        assert quick == Settings.load(file, environ={}).store.url


def test_the_configuration_is_looked_for_where_the_documents_say(tmp_path: Path) -> None:
    named = tmp_path / "named.toml"
    assert locations.find_config(named, {"MAILBACK_CONFIG": "/x"}) == named
    assert locations.find_config(None, {"MAILBACK_CONFIG": "/x"}) == Path("/x")
    expected_ = locations.SYSTEM_CONFIG if locations.SYSTEM_CONFIG.is_file() else None
    assert locations.find_config(None, {}) == expected_


@pytest.mark.parametrize(
    ("raw", "line", "what"),
    [(b"[mail]\nx = '\xff'\n", 2, "not UTF-8"), (b"a = " + b"[" * 5000 + b"]" * 5000, 0, "nested")],
)
def test_a_file_that_is_no_text_is_told_as_such(tmp_path: Path, raw: bytes, line: int, what: str) -> None:
    file = tmp_path / "m.toml"
    file.write_bytes(raw)
    with pytest.raises(SettingsError) as caught:
        Settings.load(file, environ={})
    assert [problem.line for problem in caught.value.problems] == [line]
    assert what in str(caught.value)


def test_a_file_that_is_not_there_is_a_problem_and_not_the_defaults(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        Settings.load(tmp_path / "none.toml", environ={})


def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_bytes("\ufeff[smtpd]\r\nworkers = 2\r\nnope = 1\r\n".encode())
    with pytest.raises(SettingsError) as caught:
        Settings.load(file, environ={})
    assert [(p.line, p.key) for p in caught.value.problems] == [(3, "smtpd.nope")]


def test_a_certificate_with_another_key_is_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mx.example",
                   "-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    good = f"[smtpd]\ntls_certificate_file = '{tmp_path}/one.pem'\ntls_key_file = '{tmp_path}/one.key'\n"
    assert Settings.loads(good).smtpd.tls_certificate_file == tmp_path / "one.pem"
    assert "another certificate's" in problems(good.replace("one.key", "two.key"))[0].what


def test_a_section_whose_packages_are_missing_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[web]\nlisten = '127.0.0.1:8894'\n[llm]\nurl = 'http://127.0.0.1:1/v1'\nmodel = 'm'\n"
    assert Settings.loads(text).web.listen
    monkeypatch.setattr(contradictions, "find_spec", lambda name: None if name in ("uvicorn", "httpx") else name)
    found = problems(text)
    assert [(problem.line, problem.key) for problem in found] == [(2, "web.listen"), (4, "llm.url")]
    assert [problem.what.rpartition(" ")[2] for problem in found] == ["uvicorn", "httpx"]
    assert "pip install 'mailback[web]'" in found[0].expected


def test_an_empty_key_of_the_api_is_told(tmp_path: Path) -> None:
    (tmp_path / "api.key").write_text("\n")
    [problem] = problems(f"[web]\nlisten = '127.0.0.1:8894'\nkey_file = '{tmp_path}/api.key'\n")
    assert (problem.line, problem.key) == (3, "web.key_file")


def test_a_file_that_this_user_cannot_read_is_told_only_to_who_serves(tmp_path: Path) -> None:
    # A folder: unreadable as a file even for root.
    text = f"mail.bounce_domain = 'b.test'\nsigning.secret_file = '{tmp_path}'\n"
    assert told(text) == [(2, "signing.secret_file")]
    Settings.loads(text, files=False)


def test_nothing_changes_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.loads("").smtpd.workers = 5  # type: ignore[misc]


def test_defaults_agree_with_those_of_the_readers() -> None:
    settings = Settings.loads("")
    assert settings.limits.message_limits() == LIMITS
    mail, names = settings.mail, OriginalNames()
    assert (mail.campaign_headers, mail.list_headers, mail.subscriber_headers) == (
        names.campaign, names.list_id, names.subscriber,
    )  # fmt: skip


def test_what_only_a_restart_changes_is_known() -> None:
    before = Settings.loads("[policyd]\nlisten = '127.0.0.1:1'\nsocket_mode = '0600'\n")
    after = Settings.loads("[policyd]\nlisten = '127.0.0.1:2'\nsocket_mode = '0660'\n")
    assert before.needs_restart(after) == ["policyd.socket_mode"]


def test_a_reload_keeps_where_the_store_is_and_takes_the_rest() -> None:
    before = Settings.loads("[store]\nurl = 'sqlite:////var/a.db'\n[service]\nuser = 'root'\n")
    wanted = Settings.loads("[store]\nurl = 'sqlite:////var/b.db'\nbusy_timeout_s = 2.0\n[policyd]\nworkers = 3\n")
    assert before.needs_restart(wanted) == ["store.url", "service.user"]
    taken = wanted.keeping_fixed(before)
    assert (taken.store.url, taken.service.user) == ("sqlite:////var/a.db", "root")
    assert (taken.store.busy_timeout_s, taken.policyd.workers) == (2.0, 3)
    assert before.needs_restart(taken) == []


def test_every_key_is_documented_at_the_field() -> None:
    variables = set()
    for section, key, field in all_keys():
        assert field.description, f"{section}.{key}"
        assert field.description.endswith((".", "?")), f"{section}.{key}"
        assert expected(field), f"{section}.{key}"
        variables.add(variable(section, key))
    assert len(variables) == len(list(all_keys()))


def test_a_public_relay_is_warned_of() -> None:
    settings = Settings.loads("[smtpd]\nlisten = '*:25'\nnext_hop = 'discard'\ntrusted_clients = ['0.0.0.0/0']\n")
    assert any("open relay" in warning for warning in settings.warnings())
