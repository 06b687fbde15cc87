"""Many rows through one template: rows and grids in, a plan before paying, a folder that a data loader opens out.

``rows`` (what a file of data says) → ``grids`` (variables varied on purpose) → ``plan`` (tasks, seeds, order, guards) →
``runner`` (many jobs at once, each row for itself) → ``folder`` (images, manifest, metadata).
"""
