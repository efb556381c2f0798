"""The verbs of the command line, four files by what they are for; ``commands.py`` has the table."""
