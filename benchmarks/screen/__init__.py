"""How the dashboard does: a storage as large as it must cope with, a terminal, and the numbers."""
