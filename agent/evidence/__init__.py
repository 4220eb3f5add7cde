"""What an event can be shown with: clips of the packets before and after it, snapshots, and how long they are kept."""
