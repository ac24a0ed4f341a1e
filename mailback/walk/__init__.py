"""The parts of the one walk that `mailback.engine` goes: a message read, an event made of it, an outcome for the door.

Reading order: `knowledge` (what is known beforehand, and reading a message with it), `classification` (what a message
is), `conversation` (what a reply answers, and what is done because of it), `events` (what is recorded), `outcome` (what
the door does). Nothing is imported here: whoever only classifies needs no store.
"""
