"""`python -m pacslite` is the command `pacslite`."""

from pacslite.cli import main

if __name__ == "__main__":
    main()
