"""What runner and proxy need of a sandbox beside the public toolbox: programs, ports, files. Loaded late."""
