"""What to do about what was found: pure functions over records, no clock and no database of their own.

`handling` (rows of `handling.toml`: what a verdict asks for) and `decision` (what becomes of one event) come first.
What many events add up to: `score`, `retry`, `breaker` with `breaker_rules`, `wave`. Replies: `replies`, `owners`,
`routes`. Lists and contacts: `hygiene`, `next_action`. What moves rows by these functions is `mailback.effects`.
"""
