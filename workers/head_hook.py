"""What `cluster.start_head` has `ray start` leave out (Ray calls `trim` through RAY_START_HOOK)."""

from __future__ import annotations

from typing import Any


def trim(params: Any, head: bool) -> None:
    """Start no Ray Client server: one process and one fixed port fewer; drivers are on this host."""
    params.ray_client_server_port = None
