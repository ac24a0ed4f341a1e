"""Return paths that prove themselves: what the envelope sender of our mail looks like, and what comes back to it.

Whoever sends a bounce to a signed return path has seen a message of ours, or somebody who has. Two forms:

    v1dkq4f...@bounce.example.com               mail to one recipient: a variable envelope return path (VERP)
    prvs=1337ab12cd=news=example.com@bounce...  the rest: BATV (draft-levine-smtp-batv-01, "simple private signature")

**VERP.** The local part is one word of digits and letters, read without regard to case, because case does not survive
all the servers on the way, and without any delimiter, because `+`, `-` and `=` mean something to some of them:

    v    1    dk    0123456789ab    ...
    form key  day   tag (60 bits)   body

A DSN is believed for the recipient that the *address* tells, whatever the report says, so the recipient must come out
of it without asking anybody: a door refuses at RCPT, where there is no time for a database, and a restored backup or a
second host may not know the journal entry. So the body is the recipient itself, encrypted. Each of the characters that
an unquoted address has takes six bits, which leaves room for addresses of up to 40 characters within the 64 octets of
RFC 5321 section 4.5.3.1.1. Only an address that is longer, quoted or not ASCII is told by a reference (80 bits, keyed,
the same for the same recipient) that the journal resolves; the address proves itself all the same.

The construction is that of a synthetic initialisation vector (RFC 5297): the tag is an HMAC-SHA256 of form, key, day
and recipient, truncated, and at the same time the nonce of the encryption. So one address a recipient and day comes out
(greylisting and sender reputation on the other side keep working), nothing random is needed, and a flipped bit
anywhere gives another recipient, whose tag does not fit. Others see the length in steps of four characters, and
whether two return paths of one day are for the same recipient; the journal's form shows that across days.

**BATV**, where the draft is departed from: the MAC is HMAC-SHA256 over the address as look-ups compare it, so that it
survives case folding; a sender outside the bounce domain stands as `local=domain`; and a tag is never laid over one of
ours. The form itself (`prvs=KDDDSSSSSS=`) is kept to the letter, because mailing lists, greylisting servers and
anti-spam gateways know it and look behind it. Its 24 bits are little and it names no recipient: see
`mailback.provenance.grading` for how little it proves alone. What does not fit 64 octets becomes an address like
VERP's, with the sender in the body.

What others do to a return path is undone before it is read: SRS0 and SRS1 (sender rewriting by a forwarder), a
`prvs=` or `btv1==` of somebody else around ours, `+extension` behind it. That is safe: what is inside must prove
itself.

**Unsubscribing.** The address of a `List-Unsubscribe` field (RFC 2369, RFC 8058) is a VERP address of a form of its own
behind the word `unsubscribe-`: a return path, which every server on the way has seen, does not unsubscribe, and the
other way round. It counts for years, as mail is kept.

Mailing lists that know their posters by the envelope sender see a new one each day. Recipients there belong in
`signing.exempt_recipients`: their mail goes out with the return path as it is.

Reading order: `paths` (a return path given out and read back), its two forms `verp` and `batv`, `keys`, `days`, and
`standing`: what comes out. Emits no log events; the doors do.
"""

from mailback.returnpath.keys import MOST_KEYS, Key, KeyFileError, Keys
from mailback.returnpath.paths import ReturnPaths, load, sign, unsubscribe_address, verify
from mailback.returnpath.standing import REFUSAL, Standing, Verified
from mailback.returnpath.verp import LONGEST_LOCAL

__all__ = [
    "LONGEST_LOCAL",
    "MOST_KEYS",
    "REFUSAL",
    "Key",
    "KeyFileError",
    "Keys",
    "ReturnPaths",
    "Standing",
    "Verified",
    "load",
    "sign",
    "unsubscribe_address",
    "verify",
]
