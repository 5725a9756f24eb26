"""Volunteers as their clients see them: found under topics, tested before they are used, remembered, replaced."""
