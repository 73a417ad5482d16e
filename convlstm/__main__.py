"""python -m convlstm: the command line."""

from convlstm.cli import main

main()
