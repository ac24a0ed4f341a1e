"""What waits for a person: queued with the event, due by a time, decided once.

Reading order: `queue` (what waits, and until when), `deciding` (what a person's word does),
`clock` (the part of the service that notes missed deadlines). The store keeps the items
(`mailback.store.reviews`), `mailback review` shows them.
"""
