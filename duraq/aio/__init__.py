"""DuraQ for asyncio and trio: the same names, the same semantics, and nothing that blocks the event loop.

    async with aio.FileStorage("queues") as storage:
        emails = aio.Queue("emails", storage)
        await emails.enqueue({"to": "ann@example.com"})
        async for entry in emails.consume():
            await emails.mark_completed(entry)

Needs anyio (``pip install 'duraq[aio]'``). What blocks is done by a few threads; whoever waits for an entry
takes none. A task may be cancelled at any moment: a call that has begun is ended before the cancellation goes
on, and what it leased is given back, uncounted.
"""

from duraq.aio.dead_letters import DeadLetterQueue
from duraq.aio.manager import QueueManager
from duraq.aio.queue import Queue
from duraq.aio.storage import FileStorage, MemoryStorage, Storage
from duraq.aio.worker import Worker

__all__ = ["DeadLetterQueue", "FileStorage", "MemoryStorage", "Queue", "QueueManager", "Storage", "Worker"]
