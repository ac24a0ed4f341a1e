"""The syntax of MIME, one thing a module: what `mailback.message` is made of.

`charsets`, `transfer`, `words` and `parameters` turn octets into text, `headers` and `multipart` find where things lie,
`limits` says how much of a message is read. Everything is linear in the input and raises on no octets.
"""
