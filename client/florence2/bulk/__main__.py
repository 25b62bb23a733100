"""`python -m florence2.bulk`: the same as `florence2 bulk`."""

from florence2.cli.bulk_command import main

if __name__ == "__main__":
    main()
