"""The views, one module each: ``build(tab, ...)`` makes the frame at once and tells the tab how to fill it."""
