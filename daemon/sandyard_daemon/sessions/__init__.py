"""Sessions: a shell each, its commands one after another, their output captured byte for byte."""
