"""What a person means: the new text of a reply, its language, dates, intent, safety, and where it goes.

Reading order: `reader` (one reply read whole), then its steps: `body` (what is new), `language`, `intent` and `model`
joined by `meaning`, `flags`, `dates` and `followup` (with `spans`), `contact`, `routing`. Safety is `safety` with its
signs: `attachments`, `links`, `posing`, `lookalike`, `wording`, and `clamd`. `words`, `phrases`, `concepts` and
`rulefiles` are what the steps stand on.
"""

from mailback.reply.reader import NO_KNOWLEDGE, Known, Reply, ReplyRules, read

__all__ = ["NO_KNOWLEDGE", "Known", "Reply", "ReplyRules", "read"]
