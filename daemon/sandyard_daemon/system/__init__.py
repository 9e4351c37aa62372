"""What the sandbox uses of its machine, and which ports its programs listen on."""
