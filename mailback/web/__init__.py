"""The HTTP interface: one-click unsubscribing for recipients, an API for applications. Needs the extra `web`."""
