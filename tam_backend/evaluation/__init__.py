"""How good the masks are, and how much work of a person they cost: metrics, data sets, protocols, reports."""
