"""`python -m l4sim`."""

from l4sim.cli import main

main()
