"""Readers of videos, folders and lists of images."""
