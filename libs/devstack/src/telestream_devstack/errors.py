"""What can go wrong with the embedded stack.

DevstackError
├── PortTaken         a port of ours is in use by somebody else
├── DownloadFailed    a jar could not be fetched, or is not what the lock file says
├── PartFailed        a part did not start, or stopped while starting
└── StackConflict     the state directory is in use by a stack with other settings
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class DevstackError(TelestreamError):
    """The message is one line: what was tried, on what, and what to do."""


class PortTaken(DevstackError):
    pass


class DownloadFailed(DevstackError):
    pass


class PartFailed(DevstackError):
    pass


class StackConflict(DevstackError):
    pass
