"""The `mailback` command, one module a command group, named for it.

`main` finds and runs a command. What commands share: `options`, `out`, `errors`, `files`, `mailboxes`. What one of them
needs beside itself bears its subject: `postfix` and `diagnosis` (doctor), `services` and `cdb` (suppression lists),
`demo_mail`, `hygiene_picture`. `reference` writes the pages that come from the code.
"""
