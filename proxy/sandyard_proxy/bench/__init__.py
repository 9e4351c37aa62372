"""The test bench at the front door: faults on order and the journal. Not in the way while neither is in use."""
