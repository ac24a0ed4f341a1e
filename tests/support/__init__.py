"""What several tests share: mail of our own writing, a running Mailback, free ports, waiting on conditions."""
