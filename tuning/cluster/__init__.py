"""Several laptops, one cluster: how they find, know and compare each other; plain sockets and files, no Ray."""
