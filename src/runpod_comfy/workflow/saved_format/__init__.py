"""Workflows as ComfyUI's editor saves them, turned into the API format that a server runs.

``model`` reads the file, ``groups`` makes subgraphs of the older group nodes, ``expand`` lays nested subgraphs out,
``wires`` finds what feeds an input through reroutes, bypassed nodes and subgraph borders, ``values`` tells which value
belongs to which input, and ``convert`` puts the graph together. The rules are those that ComfyUI's editor follows when
it queues a workflow.
"""
