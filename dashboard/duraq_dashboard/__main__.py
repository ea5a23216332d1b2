"""``python -m duraq_dashboard``."""

from duraq_dashboard.cli import main

main()
