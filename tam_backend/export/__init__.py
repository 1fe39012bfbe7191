"""Finished masks as data sets: one neutral model in memory, and a module for each format that reads or writes it."""
