"""The data plane: toolbox requests, previews, WebSockets and log following."""
