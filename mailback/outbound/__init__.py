"""The way out: whether an address may be mailed, asked by Postfix in three ways, by applications and the command line.

Reading order: `check` (the one answer), `brakes` (what waits for a provider) and `probes` (what waits for one message
to its address), `policyd` and `socketmap` over `connection`, served by `part`; `outgoing` (the return path that a
message leaves under, what the journal remembers), `entries`, `remembering` (the journal of applications), `passing`
(what they should send again now), `unsubscribing` (what we give out to unsubscribe by); `watch`, which does what nobody
may wait for.
"""
