"""What the chart's tests need besides helm."""

import os

import pytest

from hack.errors import CommandError, MissingError
from hack.toolchain.debian_programs import debian_program


@pytest.fixture(scope="session")
def promtool():
    """Path of Prometheus' own checker of rules; the tests that need it are skipped only outside CI."""
    try:
        return debian_program("promtool")
    except (MissingError, CommandError) as error:
        if os.environ.get("CI") == "true":
            raise
        return pytest.skip(str(error))
