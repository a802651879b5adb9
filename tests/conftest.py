"""Settings of all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# Other programs may be using the machine; how long an example took says nothing about it.
settings.register_profile("stylecap", deadline=None)
settings.load_profile("stylecap")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither read nor write the cache folder of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
