"""Who said it: SPF, DKIM, DMARC and ARC of one message, and the Authentication-Results field that tells them.

    resolver = Resolver()
    authenticator = Authenticator(resolver, "mx.example.org")
    told = authenticator.check(envelope, raw, message)
    told.aligned("example.net")     # does anything that passed speak for example.net?
    told.header()                   # the value of the one Authentication-Results field

Nothing here raises on mail, whatever it is: what cannot be judged is a result like any other. Everything is linear in
the size of the message, and the time for DNS is bounded for each message (`resolver`). Heavy libraries are imported by
the first message that needs them. Emits no log events.
"""

from mailback.auth.authenticator import Authenticator
from mailback.auth.resolver import Resolver
from mailback.auth.results import Authentication, Result

__all__ = ["Authentication", "Authenticator", "Resolver", "Result"]
