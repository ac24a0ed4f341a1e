"""Door 2: the standalone SMTP and LMTP receiver, on aiosmtpd and uvloop."""
