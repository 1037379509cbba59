"""pacslite: a small PACS that speaks DIMSE and DICOMweb.

The map of the package is docs/architecture.md; `pacslite.app.build` is where its objects meet. Scripts have `FileStorageService`
(docs/python.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacslite.file_storage import FileStorageService, FileVersionType, MedicalCategory, MedicalFileType

__version__ = "0.1.0"
__all__ = ["FileStorageService", "FileVersionType", "MedicalCategory", "MedicalFileType", "__version__"]


def __getattr__(name: str) -> Any:
    """What scripts use is loaded when it is first asked for: every role imports this package."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("pacslite.file_storage"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
