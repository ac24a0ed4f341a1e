"""What an event changes, within the transaction that records it: scores, retries, breakers.

The rules are pure functions of `mailback.policy`, the rows lie in `mailback.store`; here one moves the other.
`scoring` keeps the score of an address and the hold that follows, `retrying` the messages worth sending again,
`breakers` the breakers, with `senders`: which of our addresses and domains a refusal is about.
"""
