"""Door 2: the standalone SMTP and LMTP receiver, on aiosmtpd and uvloop.

Reading order: `session` (one conversation, with `path`, `reply`, `limits`), `intake` (between the end of a message and
the answer to it), `content` and `outgoing` (what is changed), `destination` with `forward` and `maildir` (where it
goes), `part` (sockets and workers).
"""
