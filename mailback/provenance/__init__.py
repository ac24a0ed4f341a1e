"""How far a report is believed, and what may follow from many of them together.

Reading order: `grading` (the rules, pure: one grade with its reason), `speakers` (who may report for whom),
`authentication` (what DNS and signatures show about who brought it), `belief` (what the return path and the journal
show, asked within the transaction), `outcomes` (what becomes of mail to each provider, by the hour), `guard` (limits on
what reports may do together).
"""
