"""As many descriptors as may be: whoever looks at hundreds of queues has a few of each.

Only for commands that look. What others start inherits the limit, and may not cope with numbers beyond 1024.
"""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_many() -> None:
    """Raise this process's own limit to what it is allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # more than there can be
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
