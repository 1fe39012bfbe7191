"""The embedded engine: what other frames show, carried along the flow. No weights."""
