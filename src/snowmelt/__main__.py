"""`python -m snowmelt` is `snowmelt`."""

from snowmelt.cli.main import main

if __name__ == "__main__":
    main()
