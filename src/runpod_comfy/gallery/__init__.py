"""``gallery.html``: one page to look through a dataset, compare and choose, from disk and without a network.

``data`` (what the manifest says, as the page wants it) → ``page`` (data, style and script joined to one file) →
``live`` (kept up to date while a batch runs). The page itself is plain JavaScript in ``assets``, a file for each idea.
"""
