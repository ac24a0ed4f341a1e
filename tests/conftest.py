"""No test reads the settings of whoever runs it: the README has people export MAILBACK_CONFIG before `make test`."""

from __future__ import annotations

import os

for name in [name for name in os.environ if name.startswith("MAILBACK_")]:
    del os.environ[name]
