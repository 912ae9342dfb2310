"""A module that comes to grief on import, but only in a node: its tests define the class by hand."""

raise RuntimeError("this module does not like you")
