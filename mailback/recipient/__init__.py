"""What is known about a recipient: whether the address can take mail, who runs its domain, what its owner read.

`capture` checks an address that somebody enters, `entering` asks what that needs and keeps the attempt, `mailhosts`
asks DNS which hosts take a domain's mail, `hosting` tells what the store knows of that without waiting, `readership`
what a recipient did with earlier mail.
"""
