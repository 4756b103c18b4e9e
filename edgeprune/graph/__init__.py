"""Torch programs as graphs: traced, their channel groups found, cut and proven, saved and loaded."""
