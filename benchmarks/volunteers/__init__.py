"""Volunteer relays: what carries datagrams best, and what an attacker's addresses cost."""
