"""Slow things: each can be cancelled, is bounded, and has its own limiter."""
