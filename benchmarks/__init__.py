"""How fast Sandyard is, measured from outside and beside a baseline on the same machine in the same run."""
