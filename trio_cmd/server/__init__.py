"""A listener, its clients, their conversations."""
