"""Verifies an artifact against its checkpoint, and reports what was found."""
