"""The way out: whether an address may be mailed, asked by Postfix in three ways, by applications and the command line.

Reading order: `check` (the one answer) and `brakes` (what waits for a provider), `policyd` and `socketmap` over
`connection`, served by `part`; `outgoing` (the return path that a message leaves under, what the journal remembers),
`entries`, `unsubscribing` (what we give out to unsubscribe by); `watch`, which does what nobody may wait for.
"""
