"""Where the command begins: before anything is imported, so that Ctrl-C is heard from the first moment."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from topgraft.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("topgraft: Stopped.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
