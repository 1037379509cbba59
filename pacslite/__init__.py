"""pacslite: a small PACS that speaks DIMSE and DICOMweb.

The map of the package is docs/architecture.md; `pacslite.app.build` is where its objects meet.
"""

__version__ = "0.1.0"
