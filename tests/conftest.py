"""No test reads the settings of whoever runs it: people export MAILBACK_CONFIG. Tests that need root have a mark."""

from __future__ import annotations

import os

import pytest

for name in [name for name in os.environ if name.startswith("MAILBACK_")]:
    del os.environ[name]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: `make test` runs it through sudo")
