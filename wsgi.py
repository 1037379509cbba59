"""The WSGI application, for any server: `gunicorn -c conf/gunicorn.py wsgi:app`. Settings come from the environment and PACSLITE_CONFIG."""

from pacslite.app import web_application
from pacslite.settings import load

app = web_application(load())
