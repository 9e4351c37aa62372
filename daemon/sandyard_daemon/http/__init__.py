"""HTTP/1.1 on the door: messages, the connection, routing. Nothing here knows what the routes do."""
