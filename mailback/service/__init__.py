"""What runs a service: listening sockets, the supervisor of worker processes, systemd's protocol, logs."""
