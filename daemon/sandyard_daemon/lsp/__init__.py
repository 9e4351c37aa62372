"""Language servers of the sandbox's projects, spoken to on behalf of clients that only know HTTP."""
