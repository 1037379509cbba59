"""Gunicorn's settings, made from pacslite's: `gunicorn -c conf/gunicorn.py wsgi:app` serves everything that is HTTP.

The catalog must exist (`pacslite migrate`); the DICOM listener and the worker are `pacslite serve dimse` and `worker`.
"""

from pacslite.listeners import check_loopback
from pacslite.logs import configure
from pacslite.private import confine
from pacslite.settings import load
from pacslite.web_server import options

confine()
_settings = load()
check_loopback(_settings)
configure(_settings.log_level)
globals().update(options(_settings))
