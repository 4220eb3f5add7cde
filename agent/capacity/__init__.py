"""How many cameras this machine carries, and how it is shared among them."""
