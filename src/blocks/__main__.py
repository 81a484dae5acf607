"""``python -m blocks`` is the command ``blocks``."""

from blocks.app.cli import main

if __name__ == "__main__":
    main()
