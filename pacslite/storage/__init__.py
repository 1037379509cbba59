"""Where bytes live: a blob store (filesystem or S3), its keys, and the spool of bytes not accepted yet.

Knows nothing of the catalog, of DICOM attributes or of protocols.
"""
