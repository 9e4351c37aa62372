"""Git through the sandbox's own git program: the `/git` part of the toolbox."""
