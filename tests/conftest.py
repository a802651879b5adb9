"""Settings of all tests."""

from hypothesis import settings

# Other programs may be using the machine; how long an example took says nothing about it.
settings.register_profile("stylecap", deadline=None)
settings.load_profile("stylecap")
