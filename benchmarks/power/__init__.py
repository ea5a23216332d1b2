"""Real power cuts: a disk that loses its power, processes under load, and what their queues are after it.

``make power-cuts`` puts DuraQ and its peers through the same cuts; ``tests/crash`` has those of DuraQ alone.
"""
