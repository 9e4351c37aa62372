"""What of the protocol this version covers: one table, the router over it, and the page made from it."""
