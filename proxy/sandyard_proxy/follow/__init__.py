"""Following a command's log: every byte once, in order, whatever the bus, the relay or a queue lost (design.md 7).

`source` reads the log's file through the daemon, `live` holds what came over the bus, `engine` makes one gapless
sequence of both, `formats` turns it into bytes, `routes` serves it as WebSocket, text and Server-Sent Events.
"""
