"""The WSGI application, for any WSGI server: ``gunicorn --threads 16 _wsgi:app``. Options: environment (README)."""

import os

from model import TrackAnything
from tam_backend.server.app import create_app
from tam_backend.settings import Settings

app = create_app(Settings.from_env(os.environ), TrackAnything)
