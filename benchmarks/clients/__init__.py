"""What is measured, each in a process of its own: this project, its peers, and the bare loop that bounds them all.

A client takes JSON (`base_url`, `endpoint_id`, `jobs`, `at_once`, `output_dir`, …) and prints JSON. Those of peers
import nothing of this project, since they run under another interpreter.
"""
