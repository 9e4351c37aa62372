"""Where ports of sandboxes are served, and URLs that open one of them for a while."""
