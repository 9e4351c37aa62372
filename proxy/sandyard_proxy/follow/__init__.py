"""Following a command's log: every byte once, in order, whatever the bus, the relay or a queue lost (design.md 7).

`source` reads the log's file through the daemon; `hub` gathers, for all who follow a log here, what bus and relay
(`feeds`) tell, in the window of `live`; `engine` makes one gapless sequence of file and window for each follower;
`formats` turns it into bytes; `routes` serves it as WebSocket, text and Server-Sent Events.
"""
