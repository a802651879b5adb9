"""The web page's widgets: what they show is computed in `stylecap.server`."""
