"""The queues that are compared, a module for each kind; ``registry`` has the list.

Nothing is imported here: a worker process imports the module of its own queue only.
"""
