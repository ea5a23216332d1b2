"""How things went: rates and durations over a time, from snapshots and from what queues have counted."""
