"""Where queues live: the storage protocol and its backends."""
