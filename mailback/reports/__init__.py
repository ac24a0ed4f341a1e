"""What machines say about mail of ours: delivery reports of every shape, complaints, receipts, automatic answers.

    report = reports.read(message, envelope)

tells the kind of any message, and for reports whom they are about and why. Nothing in this folder raises on any bytes.
"""

from mailback.reports.original import DEFAULT, OriginalNames
from mailback.reports.reader import RECIPIENT_CAP, read
from mailback.reports.report import DeliveryFailure, Original, Report
from mailback.reports.vocabulary import Vocabulary

__all__ = ["DEFAULT", "RECIPIENT_CAP", "DeliveryFailure", "Original", "OriginalNames", "Report", "Vocabulary", "read"]
