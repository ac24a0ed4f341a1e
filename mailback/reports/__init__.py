"""What machines say about mail of ours: delivery reports of every shape, complaints, receipts, automatic answers.

    report = reports.read(message, envelope)

tells the kind of any message, and for reports whom they are about and why. Nothing in this folder raises on any bytes.

Reading order: `report` (the record), `facts` (what is known of a message first), `reader` (which reader answers), then
a file a kind: `bounces` (with `dsn`, `legacy`, `reasons`), `arf`, `mdn`, `autoreply`, `challenge`, `notices`.
`original` reads what a report returns; `dialects` and `words` hold what is data.
"""

from mailback.reports.original import DEFAULT, OriginalNames
from mailback.reports.reader import RECIPIENT_CAP, read
from mailback.reports.report import DeliveryFailure, Original, Report
from mailback.reports.vocabulary import Vocabulary

__all__ = ["DEFAULT", "RECIPIENT_CAP", "DeliveryFailure", "Original", "OriginalNames", "Report", "Vocabulary", "read"]
