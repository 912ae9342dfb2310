"""Nodes across hosts: who may join, what each host offers, and which child lives where."""
