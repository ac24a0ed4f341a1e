"""The way out: whether an address may be mailed, asked by Postfix in three ways and by the command line."""
