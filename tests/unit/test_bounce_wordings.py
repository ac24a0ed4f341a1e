"""What servers say, and the cause that it means: one line a phenomenon, in the words that such servers use.

Each line guards a reading that a rule could lose when another one is added: the sender's unknown user taken for the
recipient's, a rate limit under 5.1.1, a full disk for a full mailbox.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from mailback.bounce import rules
from mailback.bounce.classify import Classifier
from mailback.bounce.taxonomy import Kind
from mailback.reports.report import DeliveryFailure, Report
from mailback.resources import rules_dir

# cause | reply code | enhanced status | remote host | diagnostic
WORDINGS = """
user_unknown | 550 | 5.1.1 | mx.a.example | 550 5.1.1 <bo@a.example>: Recipient address rejected: User unknown in relay recipient table
user_unknown | 550 | 5.1.1 | mx.a.example | 550 5.1.1 <bo@a.example>... User unknown
user_unknown | 550 | | mx.a.example | 550 No Such User Here
user_unknown | 550 | | mx.a.example | 550-Callback setup failed while verifying <x> 550 Unrouteable address
user_unknown | 550 | 5.1.1 | gmail-smtp-in.l.google.com | 550-5.1.1 The email account that you tried to reach does not exist. Please try 550-5.1.1 double-checking the recipient's email address for typos or 550 5.1.1 unnecessary spaces. https://support.google.com/mail/?p=NoSuchUser d2si1 - gsmtp
user_unknown | 550 | 5.5.0 | mx4.hotmail.com | 550 Requested action not taken: mailbox unavailable
user_unknown | 554 | | mta7.am0.yahoodns.net | 554 delivery error: dd Requested mail action not taken: mailbox not found - mta1112.mail.ne1.yahoo.com
user_unknown | 550 | 5.4.1 | a-example.mail.protection.outlook.com | 550 5.4.1 Recipient address rejected: Access denied. AS(201806281)
user_unknown | 550 | 5.1.10 | x.outlook.com | 550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient bo@a.example not found by SMTP address lookup
user_unknown | 511 | 5.1.1 | | 511 sorry, no mailbox here by that name (#5.1.1 - chkuser)
user_unknown | 550 | 5.1.1 | mx.mail.ru | 550 Message was not accepted -- invalid mailbox. Local mailbox bo@mail.ru is unavailable: user not found
user_unknown | 550 | 5.7.1 | mxfront.yandex.ru | 550 5.7.1 No such user!
user_unknown | 550 | | mx1.qq.com | 550 Mailbox not found. http://service.mail.qq.com/cgi-bin/help
user_unknown | 550 | | mx3.163.com | 550 User not found: bo@163.com
user_unknown | 550 | 5.1.1 | | 550 5.1.1 El usuario no existe
user_unknown | 550 | 5.1.1 | | 550 Utilisateur inconnu
user_unknown | 550 | 5.1.1 | | 550 5.1.1 Benutzer unbekannt
user_unknown | 550 | | | 550 Empfänger unbekannt
user_unknown | 550 | | | 550 5.7.1 Casella inesistente
user_unknown | 550 | | | 550 usuário inexistente
user_unknown | 550 | | | Пользователь не найден
user_unknown | 550 | | | 550 收件人不存在
user_unknown | 550 | | | 宛先のメールアドレスが存在しません
user_unknown | 550 | | | 550 존재하지 않는 사용자입니다
user_unknown | | 5.0.0 | | User bo (bo@a.example) not listed in Domino Directory
user_unknown | | | | MSEXCH:IMS:A:B:C 0 (000C05A6) Unknown Recipient
user_unknown | 550 | 5.1.1 | mx1.comcast.net | 550 5.1.1 Not our Customer
user_unknown | 554 | 5.7.1 | | 554 5.7.1 <bo@a.example>: Recipient address rejected: Account not found
user_unknown | 550 | | | 550 Address Unknown
user_unknown | 550 | | | 550 <bo@a.example> is not a valid mailbox
user_unknown | 550 | | | 550 That user doesn't exist
user_unknown | 550 | 5.1.1 | | 550 5.1.1 <bo@a.example> User doesn't exist: bo@a.example
user_unknown | 550 | 5.2.1 | | 550 5.2.1 This mailbox does not exist
user_unknown | 554 | | | 554 Recipient address unknown
address_moved | 550 | 5.1.6 | | 550 5.1.6 recipient no longer on server: bo@a.example
user_unknown | | 5.1.1 | | unknown user: "bo"
user_unknown | 551 | | | 551 not our user
user_unknown | 550 | | | 550 unknown user account
user_unknown | 553 | | | 553 sorry, that recipient is not in our list of valid users: invalid recipient
domain_invalid | | 5.4.4 | | Host or domain name not found. Name service error for name=a.example type=AAAA: Host not found
domain_invalid | 550 | 5.1.2 | | 550 5.1.2 <bo@a.example>... Host unknown (Name server: a.example: host not found)
domain_invalid | | 5.1.2 | | Sorry, I couldn't find any host named a.example. (#5.1.2)
domain_invalid | | 5.4.4 | | Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)
domain_invalid | 556 | 5.1.10 | | 556 5.1.10 Recipient address has null MX
domain_invalid | 521 | 5.3.2 | | 521 5.3.2 a.example does not accept mail
domain_invalid | | 5.4.310 | x.prod.outlook.com | 550 5.4.310 DNS domain a.example does not exist [Message=InfoDomainNonexistent]
domain_invalid | | | | all relevant MX records point to non-existent hosts
domain_invalid | | | | Unrouteable address
domain_invalid | | 5.1.2 | | 550 Unable to find MX: Domain not found
domain_invalid | | 5.0.0 | | No such domain.
routing_error | | 4.4.3 | | Host or domain name not found. Name service error for name=a.example type=MX: Host not found, try again
routing_error | | 5.4.6 | | mail for a.example loops back to myself
routing_error | 554 | 5.4.6 | | 554 5.4.6 Too many hops
routing_error | 554 | 5.4.14 | x.outlook.com | 554 5.4.14 Hop count exceeded - possible mail loop ATTR1
routing_error | | 4.4.0 | | CNAME lookup failed temporarily. (#4.4.3)
mailbox_disabled | 550 | 5.2.1 | gmail-smtp-in.l.google.com | 550-5.2.1 The email account that you tried to reach is disabled. Learn more at 550 5.2.1 https://support.google.com/mail/?p=DisabledUser x - gsmtp
mailbox_disabled | 554 | | mta5.am0.yahoodns.net | 554 30 Sorry, your message to bo@yahoo.com cannot be delivered. This mailbox is disabled (554.30).
mailbox_disabled | 550 | 5.2.1 | | 550 5.2.1 Mailbox disabled for this recipient
mailbox_disabled | 550 | | | 550 Account suspended
mailbox_disabled | 550 | | | 550 This account has been disabled
mailbox_disabled | 525 | 5.7.13 | | 525 5.7.13 Disabled recipient address
mailbox_disabled | 550 | 5.1.1 | | 550 5.1.1 <bo@a.example> Das Postfach ist deaktiviert
mailbox_disabled | 550 | | | 550 mailbox is inactive
mailbox_disabled | 550 | | mx.libero.it | 550 RCPT TO: account inactive
address_moved | 551 | 5.1.6 | | 551 5.1.6 User has moved; please try <bo@b.example>
address_moved | 551 | | | 551 User not local; please try <bo@b.example>
mailbox_full | 552 | 5.2.2 | | 552 5.2.2 Mailbox full
mailbox_full | 552 | | | 552 Requested mail action aborted: exceeded storage allocation
mailbox_temporarily_full | 452 | 4.2.2 | gmail-smtp-in.l.google.com | 452-4.2.2 The recipient's inbox is out of storage space. Please direct the 452-4.2.2 recipient to https://support.google.com/mail/?p=OverQuotaTemp x - gsmtp
mailbox_full | 554 | 5.2.2 | x.prod.outlook.com | 554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message
mailbox_full | 550 | | mx.qiye.163.com | 550 用户邮箱已满
mailbox_full | 552 | | | 552 5.2.2 La boîte aux lettres du destinataire est pleine
mailbox_full | 550 | | | 550 El buzón está lleno
mailbox_full | 552 | | | 552 Casella piena
mailbox_full | 552 | | | 552 Das Postfach des Empfängers ist voll
mailbox_full | | | | メールボックスの容量が超過しています
mailbox_full | 550 | 5.7.1 | | 550 5.7.1 Sorry, bo is over quota
mailbox_full | | | | Quota exceeded (mailbox for user is full)
message_too_large | 552 | 5.3.4 | | 552 5.3.4 Message size exceeds fixed maximum message size of server
message_too_large | 552 | 5.2.3 | gmail-smtp-in.l.google.com | 552-5.2.3 Your message exceeded Google's message size limits. Please visit 552 5.2.3 https://support.google.com/mail/?p=MaxSizeError
message_too_large | 554 | 5.7.1 | | 554 5.7.1 message too large
message_too_large | | 5.3.4 | | message size 31457280 exceeds size limit 26214400 of server mx.a.example[192.0.2.1]
relay_denied | 554 | 5.7.1 | | 554 5.7.1 <bo@a.example>: Relay access denied
relay_denied | 550 | 5.7.1 | | 550 5.7.1 Unable to relay
relay_denied | 553 | | | 553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)
relay_denied | 550 | | | 550 relay not permitted
relay_denied | 550 | 5.7.64 | x.mail.protection.outlook.com | 550 5.7.64 TenantAttribution; Relay Access Denied
policy_violation | 554 | 5.7.9 | mta5.am0.yahoodns.net | 554 5.7.9 Message not accepted for policy reasons. See https://senders.yahooinc.com/error-codes
policy_violation | 550 | 5.7.1 | | 550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy
policy_violation | 550 | 5.7.0 | | 550 5.7.0 Local Policy Violation
recipient_rejected | 550 | 5.7.1 | | 550 5.7.1 RESOLVER.RST.AuthRequired; authentication required
server_temporarily_unavailable | | 4.4.1 | | connect to mx.a.example[192.0.2.1]:25: Connection refused
server_temporarily_unavailable | | 4.4.2 | | lost connection with mx.a.example[192.0.2.1] while sending RCPT TO
server_temporarily_unavailable | | 4.4.1 | | Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)
server_temporarily_unavailable | | 4.4.2 | | conversation with mx.a.example timed out while receiving the initial server greeting
server_temporarily_unavailable | 451 | 4.3.0 | | 451 4.3.0 Temporary lookup failure
server_temporarily_unavailable | 452 | 4.3.1 | | 452 4.3.1 Insufficient system storage
server_temporarily_unavailable | 451 | 4.7.1 | | 451 Temporary local problem - please try later
server_temporarily_unavailable | 450 | 4.1.1 | | 450 4.1.1 <bo@a.example>: Recipient address rejected: unverified address: Address verification in progress
message_temporarily_delayed | | 4.4.7 | | delivery time expired
message_temporarily_delayed | | | | retry timeout exceeded
message_temporarily_delayed | | 5.4.7 | | message expired, could not be delivered for 5 days
content_rejected | 552 | 5.7.0 | gmail-smtp-in.l.google.com | 552-5.7.0 This message was blocked because its content presents a potential 552-5.7.0 security issue. Please visit https://support.google.com/mail/?p=BlockedMessage
content_rejected | 554 | 5.6.0 | | 554 5.6.0 Banned attachment: invoice.exe
content_rejected | 550 | 5.7.1 | gmail-smtp-in.l.google.com | 550-5.7.1 [192.0.2.1] Messages missing a valid address in From: 550 5.7.1 header, or having no From: header, are not accepted. - gsmtp
configuration_error | | 5.3.5 | | local configuration error
configuration_error | | 5.3.0 | | Command died with status 127: "/usr/bin/procmail". Command output: sh: procmail: command not found
protocol_error | 503 | 5.5.1 | | 503 5.5.1 Error: need RCPT command
protocol_error | | 5.6.7 | | SMTPUTF8 is required, but was not offered by host mx.a.example[192.0.2.1]
ip_blocked | 554 | 5.7.1 | | 554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.1
ip_blocked | 550 | 5.7.606 | x.mail.protection.outlook.com | 550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit https://sender.office.com/
ip_blocked | 554 | | | 554 Your IP address 192.0.2.1 is blacklisted
ip_blocked | 550 | 5.7.1 | | 550 5.7.1 Mail from 192.0.2.1 refused: listed in bl.spamcop.net
ip_blocked | 550 | | | 550 Dynamic IP addresses are not accepted here
domain_blocked | 554 | 5.7.1 | | 554 5.7.1 Service unavailable; Sender address [x@b.example] blocked using dbl.spamhaus.org
reputation_blocked | 421 | 4.7.0 | mta5.am0.yahoodns.net | 421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes
reputation_blocked | 550 | | | 550 Rejected due to poor reputation of sending IP
reputation_blocked | 554 | | | 554 Your access to this mail system has been rejected due to the sending MTA's poor reputation.
sender_rejected | 550 | 5.1.0 | | 550 5.1.0 <x@b.example>: Sender address rejected: User unknown in virtual mailbox table
sender_rejected | 450 | 4.1.8 | | 450 4.1.8 <x@b.example>: Sender address rejected: Domain not found
sender_rejected | 550 | | | 550 Sender verify failed
sender_rejected | 553 | 5.1.8 | | 553 5.1.8 <x@b.example>... Domain of sender address x@b.example does not exist
sender_rejected | 553 | | | 553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)
reverse_dns_missing | 550 | 5.7.25 | gmail-smtp-in.l.google.com | 550-5.7.25 [192.0.2.1] The IP address sending this message does not have a PTR record setup
reverse_dns_missing | 450 | 4.7.1 | | 450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.1]
reverse_dns_missing | 554 | | mx00.gmx.net | 554-gmx.net (mxgmx101) Nemesis ESMTP Service not available 554-No SMTP service 554 Bad DNS PTR resource record.
tls_required | 530 | 5.7.0 | | 530 5.7.0 Must issue a STARTTLS command first
tls_required | | 4.7.5 | | Server certificate not trusted
tls_required | | 4.7.4 | | TLS is required, but was not offered by host mx.a.example[192.0.2.1]
rate_limited | 550 | 5.1.1 | smtp.secureserver.net | 550 5.1.1 <bo@a.example> - 192.0.2.1 has sent to too many recipients this hour. IB607
rate_limited | 450 | 4.2.1 | gmail-smtp-in.l.google.com | 450-4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend - gsmtp
rate_limited | 421 | 4.7.0 | | 421 4.7.0 Too many concurrent SMTP connections from 192.0.2.1
rate_limited | 452 | 4.5.3 | | 452 4.5.3 Error: too many recipients
rate_limited | 550 | 5.4.5 | | 550-5.4.5 Daily user sending quota exceeded. - gsmtp
rate_limited | 421 | 4.7.28 | gmail-smtp-in.l.google.com | 421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address. - gsmtp
rate_limited | 451 | | | 451 4.7.1 You have exceeded the rate limit, try again in 1 hour
greylisted | 450 | 4.2.0 | | 450 4.2.0 <bo@a.example>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/a.example.html
greylisted | 451 | 4.7.1 | | 451 4.7.1 Greylisting in action, please come back later
greylisted | 451 | | | 451 Graylisted - please try again in 300 seconds
spf_fail | 550 | 5.7.23 | | 550 5.7.23 <bo@a.example>: Recipient address rejected: Message rejected due to: SPF fail - not authorized
spf_fail | 550 | 5.7.1 | | 550 5.7.1 Please see http://www.openspf.net/Why?s=mfrom;id=x%40b.example
dkim_fail | 550 | 5.7.20 | | 550 5.7.20 No passing DKIM signature found
dmarc_fail | 550 | 5.7.1 | | 550 5.7.1 rejected by DMARC policy for b.example
dmarc_fail | 550 | 5.7.509 | x.outlook.com | 550 5.7.509 Access denied, sending domain b.example does not pass DMARC verification and has a DMARC policy of reject.
auth_fail | 550 | 5.7.26 | gmail-smtp-in.l.google.com | 550-5.7.26 Your email has been blocked because the sender is unauthenticated. 550-5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM. - gsmtp
auth_fail | 550 | 5.7.515 | x.outlook.com | 550 5.7.515 Access denied, sending domain b.example does not meet the required authentication level.
spam_detected | 550 | 5.7.1 | gmail-smtp-in.l.google.com | 550-5.7.1 [192.0.2.1 12] Our system has detected that this message is likely 550-5.7.1 unsolicited mail. To reduce the amount of spam sent to Gmail, this message has been blocked. - gsmtp
spam_detected | 554 | 5.7.1 | | 554 5.7.1 Message rejected as spam by Content Filtering.
spam_detected | 550 | | | 550 This message was classified as SPAM and may not be delivered
spam_detected | 550 | | | 550 High probability of spam
spam_detected | 554 | 5.7.1 | mxfront.yandex.ru | 554 5.7.1 [1] Message rejected under suspicion of SPAM; https://ya.cc/1IrBc
spam_detected | 550 | 5.7.1 | | 550 5.7.1 Сообщение похоже на спам
virus_detected | 554 | 5.7.1 | | 554 5.7.1 Message rejected: infected with Eicar-Test-Signature
virus_detected | 550 | | | 550 This message contains a virus (Html.Phishing.Auction-26) detected by ClamAV
challenge_response_required | 550 | | | 550 To confirm that you are a real person, click the link below to deliver your message
"""


def _cases() -> list[tuple[str, str, str, str, str]]:
    rows = []
    for line in WORDINGS.strip().splitlines():
        cause, code, status, host, diagnostic = (cell.strip() for cell in line.split("|", 4))
        rows.append((cause, code, status, host, diagnostic))
    return rows


@lru_cache(maxsize=1)
def classifier() -> Classifier:
    return Classifier(rules.load([rules_dir()]))


@pytest.mark.parametrize(("cause", "code", "status", "host", "diagnostic"), _cases())
def test_says(cause: str, code: str, status: str, host: str, diagnostic: str) -> None:
    failure = DeliveryFailure(
        "bo@a.example", smtp_code=code or None, status=status or None, remote_mta=host or None, diagnostic=diagnostic
    )
    verdict = classifier().verdict(failure, Report(Kind.BOUNCE, [failure]))
    assert verdict.subcategory == cause, verdict
