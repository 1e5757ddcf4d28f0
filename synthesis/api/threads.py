"""Database work of async views: on a thread, with the connection given back before the view goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `work` on a thread. A stream of minutes holds no connection of the pool between two looks."""
    return await sync_to_async(_with_connections_closed, thread_sensitive=False)(partial(work, *args, **kwargs))


def _with_connections_closed(work: Callable[[], R]) -> R:
    try:
        return work()
    finally:
        connections.close_all()
