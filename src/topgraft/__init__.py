"""Topgraft: a folder of labelled photos in, a classifier with honest numbers out."""

from __future__ import annotations
