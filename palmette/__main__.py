"""``python -m palmette`` is the ``palmette`` command."""

from palmette.console.cli import main

if __name__ == "__main__":
    main()
