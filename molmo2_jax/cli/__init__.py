"""The `molmo2` command: one file per subcommand, whose `main(argv)` defines its flags and runs it.

Start with main.py, which lists the subcommands. command.py parses flags and prints errors for all of them.
compare.py is no subcommand, but the last step of `make demo`.
"""
