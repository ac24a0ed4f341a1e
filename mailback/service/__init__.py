"""What runs a service: listening sockets, the supervisor of worker processes, systemd's protocol, logs.

`supervisor` is the parent process and says what a part is; `sockets`, `accepting` and `privileges` are what it opens
and gives up, `notify` what it tells systemd. `assessing` reads messages beside an event loop, `periodic` is the loop of
parts that listen nowhere, `log` is for all.
"""
