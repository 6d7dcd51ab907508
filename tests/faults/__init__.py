"""What goes wrong, for real: kills, full disks, cut connections, copies and restores, threads, processes and forks."""
