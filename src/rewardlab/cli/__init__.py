"""The command line: one file per command, registered in main.py. Imported by nobody."""
