"""Workflows in ComfyUI's API format: templates, graphs and seeds."""
