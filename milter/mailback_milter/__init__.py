"""Door 1: Postfix's milter hook, on an event loop.

Reading order: `protocol` (packets on the wire), `session` (what each step is answered; no socket, no clock),
`connection` (a session on its socket), `part` (sockets and workers); `direction` tells mail that goes out from what
comes back.
"""
