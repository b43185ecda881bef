"""Studies of servers: faults, sizes, engines; a server as a process."""
