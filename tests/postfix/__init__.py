"""A real Postfix, private to the tests, with a real Mailback behind it."""
