"""`python -m mope` is the `mope` command."""

from mope.cli import main

if __name__ == "__main__":
    main()
