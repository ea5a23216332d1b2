"""A screen over a DuraQ storage: what its queues hold, who works them, and what broke.

Layers, each of which knows only those before it: ``source`` reads the storage in threads of its own and makes
a ``snapshot``; ``view_model`` and ``history`` say what of it is shown, and how; screens and widgets draw it.
Only the screens and widgets know Textual.
"""
