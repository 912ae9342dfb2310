"""Nodes across hosts: a cluster's credentials, and the connections between its hosts."""
