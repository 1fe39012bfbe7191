"""The report of ``tam review``: figures about what people and the engine made of a project, and the page that shows
them."""
