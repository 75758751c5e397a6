"""Contacts in pictures, onsets in sound, and matching the one with the other."""
