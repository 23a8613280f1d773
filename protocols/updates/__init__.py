"""What both ends of an update agree on: artefacts' names, the document that asks for them, bundles and deltas."""
