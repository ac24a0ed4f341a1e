"""What a person means: the new text of a reply, its language, dates, intent, safety, and where it goes."""

from mailback.reply.reader import NO_KNOWLEDGE, Known, Reply, ReplyRules, read

__all__ = ["NO_KNOWLEDGE", "Known", "Reply", "ReplyRules", "read"]
