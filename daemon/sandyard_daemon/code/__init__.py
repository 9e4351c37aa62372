"""`POST /process/code-run`: a program's text run by the sandbox's own interpreter, and the charts it showed."""
