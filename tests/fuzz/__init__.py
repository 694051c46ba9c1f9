"""Files made by chance and by malice, given to everything in the package that reads a file.

scripts/fuzz.sh lets atheris look for new ones; test_hostile_files.py reads those that are known, and some by chance.
"""
