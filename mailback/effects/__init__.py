"""What an event changes, within the transaction that records it: scores, retries, breakers, reputation.

The rules are pure functions of `mailback.policy`, the rows lie in `mailback.store`; here one moves the other.
`scoring` keeps the score of an address and the hold that follows, `retrying` the messages worth sending again,
`breakers` the breakers, `reputation` how we stand at each provider, both with `senders`: which of our addresses and
domains a refusal is about.
"""
