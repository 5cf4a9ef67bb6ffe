"""`python -m sync` is `crm-sync`."""

from sync.cli import main

main()
