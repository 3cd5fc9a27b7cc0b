import pytest
from hypothesis import settings

from tests.unit.small_world import World

# A shared machine is slow at times; what is slow here shows in the run time of the whole tier.
settings.register_profile("unit", deadline=None, database=None, max_examples=40)
settings.load_profile("unit")


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden")


@pytest.fixture
def world():
    """Two endpoints that are served."""
    world = World("a", "b")
    world.serve()
    return world
