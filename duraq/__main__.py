"""``python -m duraq`` is the ``duraq`` command."""

from duraq.cli import main

if __name__ == "__main__":
    main()
